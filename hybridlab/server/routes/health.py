"""Health, open to all, and metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from hybridlab.server.routes.common import EngineDep
from hybridlab.server.schemas.base import Answer, error_responses

health_router = APIRouter(prefix="/health")
metrics_router = APIRouter()


class Live(Answer):
    live: bool
    reason: str


class Ready(Answer):
    ready: bool
    reason: str


@health_router.get("", responses={503: {"model": Ready}, **error_responses()})
@health_router.get("/ready", responses={503: {"model": Ready}, **error_responses()})
async def ready(engine: EngineDep, sent: Response) -> Ready:
    reason = await engine.not_ready()
    sent.status_code = 503 if reason else 200
    return Ready(ready=not reason, reason=reason)


@health_router.get("/live", responses={503: {"model": Live}, **error_responses()})
async def live(engine: EngineDep, sent: Response) -> Live:
    reason = engine.failed
    sent.status_code = 503 if reason else 200
    return Live(live=not reason, reason=reason)


@metrics_router.get("/metrics", responses=error_responses(401), response_class=PlainTextResponse)
async def metrics(engine: EngineDep) -> Response:
    """In Prometheus' text format."""
    text = await asyncio.to_thread(engine.metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@metrics_router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())
