"""The files of the page: all there, open without a token, with headers that keep it to itself."""

from __future__ import annotations

import re

import pytest

from hybridlab.server.app import STATIC
from tests.server.fakes import played
from tests.server.live import routes


@pytest.mark.usefixtures("token")
@played
async def test_every_file_of_the_page_has_its_address_and_no_other_is_served() -> None:
    async with routes() as (client, _):
        for path in ("", *(file.name for file in STATIC.iterdir())):
            response = await client.get(f"/{path}")
            assert response.status_code == 200
            assert response.content == (STATIC / (path or "index.html")).read_bytes()
            assert response.headers["cache-control"] == "no-cache"
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'" in policy
            assert "unsafe" not in policy
        assert (await client.get("/app.py")).status_code == 404


def test_the_page_asks_nobody_else_and_has_no_script_of_its_own() -> None:
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|localStorage|sessionStorage|document\.cookie", text), path
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", html)
