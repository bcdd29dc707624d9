"""The files of the page: all there, open without a token, with headers that keep it to itself."""

from __future__ import annotations

import re

import pytest

from hybridlab.server.static_page import FOLDER, STATIC_FILES
from tests.server.fakes import played
from tests.server.live import routes


@pytest.mark.usefixtures("token")
@played
async def test_every_file_of_the_page_has_its_address_and_no_other_is_served() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(STATIC_FILES.values())
    async with routes() as (client, _):
        for path, name in STATIC_FILES.items():
            response = await client.get(path)
            assert response.status_code == 200
            assert response.content == (FOLDER / name).read_bytes()
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'" in policy
            assert "unsafe" not in policy
        assert (await client.get("/static_page.py")).status_code == 404


def test_the_page_asks_nobody_else_and_has_no_script_of_its_own() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|localStorage|sessionStorage|document\.cookie", text), path
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", html)
