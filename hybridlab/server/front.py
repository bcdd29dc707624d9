"""The page at `/`: files of the package, each under its own name and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from hybridlab.server.security import PAGE

FOLDER = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
#: The page runs its own scripts, talks to its own server and is shown in nobody's frame.
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


def add_page(app: FastAPI) -> None:
    """A route for each file of the page."""
    for path, name in PAGE.items():
        app.add_api_route(path, _sender(FOLDER / name), include_in_schema=False)


def _sender(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        media = f"{TYPES[path.suffix]}; charset=utf-8"
        return FileResponse(path, media_type=media, headers=HEADERS)

    return send
