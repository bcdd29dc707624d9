"""The application: its routers, and errors of every kind in one shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from hybridlab.server.engine import Engine
from hybridlab.server.errors import ApiError, bad_request, internal_error
from hybridlab.server.middleware import HELD_BYTES, RequestGuardMiddleware
from hybridlab.server.routes import chat, health, hybrid, transcriptions
from hybridlab.server.routes.common import require_token
from hybridlab.server.schemas.events import referred_schemas
from hybridlab.server.schemas.requests import MAX_FIELDS

CODES = {404: "not_found", 405: "method_not_allowed"}
#: The page at `/`. It holds no secret: a browser opens an address without a token.
STATIC = Path(__file__).with_name("static")


class Api(FastAPI):
    """It also describes errors and streamed events, of which FastAPI itself does not know."""

    def openapi(self) -> dict[str, Any]:
        page = super().openapi()
        page["components"]["schemas"] |= referred_schemas()
        for route in page["paths"].values():
            for operation in route.values():
                told = operation["responses"]
                if told.get("422", {}).get("description") == "Validation Error":
                    del told["422"]  # FastAPI's own, which is 400 here
        return page


def create_app(engine: Engine, *, held_bytes: int = HELD_BYTES) -> RequestGuardMiddleware:
    """All routes over one engine, whose life is the caller's, behind the limits of requests."""
    return RequestGuardMiddleware(
        _routes(engine),
        engine.settings,
        held_bytes=held_bytes,
        on_done=engine.metrics.request_done,
    )


def _routes(engine: Engine) -> Api:
    """The page and the health routes are open to all; the rest wants the bearer token, if one is
    set."""
    # 0: a file stays in memory, which the middleware bounds; audio touches no disk, and a full one
    # harms no request
    MultiPartParser.spool_max_size = 0
    app = Api(
        title="hybridlab",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        form_limits={"max_files": 1, "max_fields": MAX_FIELDS},
    )
    app.state.engine = engine
    token = engine.settings.token
    secured = [Depends(require_token(token))] if token else []
    for part in (transcriptions.router, chat.router, hybrid.router, health.metrics_router):
        app.include_router(part, dependencies=secured)
    app.include_router(health.health_router)
    app.frontend("/", directory=STATIC, fallback=None)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return app


async def _http_error(_: Request, error: Exception) -> Response:
    """A request that is refused; or an unknown route or method, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    if isinstance(error, ApiError):
        return error.response()
    code = CODES.get(error.status_code, "invalid_request")
    found = ApiError(error.status_code, code, str(error.detail))
    found.headers = error.headers
    return found.response()


async def _invalid(_: Request, error: Exception) -> Response:
    """The first problem as one line, without the values that were sent."""
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"][1:])
    if problem["loc"] == ("body",) or problem["type"] == "json_invalid":
        found = bad_request("the body must be an object as application/json")
    else:
        found = bad_request(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return found.response()


async def _failed(_: Request, error: Exception) -> Response:
    """The error itself goes on to the server's log."""
    return internal_error("the server").response()
