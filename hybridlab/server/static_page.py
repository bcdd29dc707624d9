"""The page at `/`: files of the package, each under its own name and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

FOLDER = Path(__file__).with_name("static")
#: Files by path. They hold no secret: a browser opens an address without a token.
STATIC_FILES = {"/": "index.html"} | {
    f"/{name}": name
    for name in ("page.css", "page.js", "server.js", "sound.js", "texts.js", "ledger.js")
}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
#: The page runs its own scripts, talks to its own server and is shown in no other site's frame.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
router = APIRouter(include_in_schema=False)


def _sender(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        media = f"{TYPES[path.suffix]}; charset=utf-8"
        return FileResponse(path, media_type=media, headers=HEADERS)

    return send


for _path, _name in STATIC_FILES.items():
    router.add_api_route(_path, _sender(FOLDER / _name))
