"""Server-sent events, streams merged into one, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, format_sse_event

from hybridlab.server.errors import ApiError

Item = TypeVar("Item")


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:24]}"


def event(data: dict[str, Any], name: str = "") -> str:
    """One server-sent event."""
    text = json.dumps(data, ensure_ascii=False)
    return format_sse_event(data_str=text, event=name or None).decode()


def event_stream(events: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return EventSourceResponse(events, headers=headers)


@asynccontextmanager
async def merge_streams(*sources: AsyncIterator[Item]) -> AsyncIterator[AsyncIterator[Item]]:
    """All sources run from now on, and their items come as they are there; a fault of one is raised
    when the others are done. Leaving ends them."""
    items: asyncio.Queue[Item | None] = asyncio.Queue()

    async def pump(source: AsyncIterator[Item]) -> None:
        try:
            async for item in source:
                items.put_nowait(item)
        finally:
            items.put_nowait(None)

    async def read() -> AsyncIterator[Item]:
        for _ in tasks:
            while (item := await items.get()) is not None:
                yield item
        for task in tasks:
            await task

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        yield read()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def cancel_on_disconnect(request: Request, work: Awaitable[Item]) -> Item:
    """The result of `work`; when the client goes away first, work is cancelled and so is this."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel()
            with suppress(asyncio.CancelledError):
                await doing
            raise ApiError(499, "client_disconnected", "the client went away")
        return doing.result()
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
