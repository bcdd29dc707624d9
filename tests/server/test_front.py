"""The files of the page: all there, open without a token, with headers that keep it to itself."""

from __future__ import annotations

import re

import httpx

from hybridlab.server.front import FOLDER
from hybridlab.server.security import PAGE
from hybridlab.server.service import Service
from tests.server.test_routes import serve


def test_every_file_of_the_page_has_its_address_and_no_other_is_served() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGE.values())

    async def scene(client: httpx.AsyncClient, _: Service) -> None:
        for path, name in PAGE.items():
            response = await client.get(path)
            assert response.status_code == 200
            assert response.content == (FOLDER / name).read_bytes()
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'" in policy
            assert "unsafe" not in policy
        assert (await client.get("/front.py")).status_code == 401  # no file, and no token

    serve(scene, token="secret")


def test_the_page_asks_nobody_else_and_has_no_script_of_its_own() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|localStorage|sessionStorage|document\.cookie", text), path
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", html)
