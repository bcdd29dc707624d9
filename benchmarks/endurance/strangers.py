"""Clients that are slow, that vanish, or that send what is no audio, beside usual load."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import h11
import httpx

from benchmarks.endurance.hostile import BAD, GOOD, long_tone, near_silence
from benchmarks.endurance.load import Ask, Load, Outcome, judged, latencies, tally
from benchmarks.endurance.server import Running
from benchmarks.serve import FORM, form
from hybridlab.analysis.queueing import KNEE_RATIO
from hybridlab.models.http_model import chat_body

#: Bytes that a slow client sends or reads one by one, and its pause after each.
SLOW_BYTES = 100
PAUSE_S = 0.02
QUIET_S = 60.0
MB = 10**6
Stranger = Callable[["Wire", Ask], Awaitable[Outcome | None]]


class Wire:
    """A connection whose every byte is in this module's hands."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.address = (host, int(port))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[socket.socket]:
        """Closed with a reset, unless the server has closed it before."""
        with socket.socket() as made:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(made, self.address)
            yield made

    def parts(self, ask: Ask) -> tuple[h11.Connection, bytes, bytes]:
        """The client's side of HTTP, which has sent these headers and this body."""
        side = h11.Connection(h11.CLIENT)
        head = h11.Request(
            method="POST",
            target=ask.path,
            headers=[
                ("Host", f"{self.address[0]}:{self.address[1]}"),
                ("Content-Type", ask.content_type),
                ("Content-Length", str(len(ask.body))),
                ("Connection", "close"),
            ],
        )
        sent = side.send(head) or b""
        body = side.send(h11.Data(data=ask.body)) or b""
        side.send(h11.EndOfMessage())
        return side, sent, body


async def _send(made: socket.socket, data: bytes, *, slowly: int = 0) -> None:
    """All of it, the first `slowly` bytes one at a time."""
    loop = asyncio.get_running_loop()
    for at in range(min(slowly, len(data))):
        await loop.sock_sendall(made, data[at : at + 1])
        await asyncio.sleep(PAUSE_S)
    await loop.sock_sendall(made, data[slowly:])


async def _answer(
    made: socket.socket, side: h11.Connection, ask: Ask, since_s: float, *, slowly: bool = False
) -> Outcome:
    loop = asyncio.get_running_loop()
    status, headers, text, read = 0, {}, b"", 0
    while True:
        event = side.next_event()
        if event is h11.NEED_DATA:
            one = slowly and read < SLOW_BYTES
            data = await loop.sock_recv(made, 1 if one else 1 << 16)
            read += len(data)
            side.receive_data(data)
            await asyncio.sleep(PAUSE_S if one else 0)
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, {k.decode(): v.decode() for k, v in event.headers}
        elif isinstance(event, h11.Data):
            text += bytes(event.data)
        else:
            break
    fate, why = judged(ask, status, headers, text.decode())
    return Outcome(ask.kind, fate, why, since_s, since_s, time.monotonic())


# ---------------------------------------------------------------------------------------- slow


async def slow_headers(wire: Wire, ask: Ask) -> Outcome:
    return await _ask(wire, ask, head=SLOW_BYTES)


async def slow_body(wire: Wire, ask: Ask) -> Outcome:
    return await _ask(wire, ask, body=SLOW_BYTES)


async def slow_reader(wire: Wire, ask: Ask) -> Outcome:
    return await _ask(wire, ask, reads=True)


async def promptly(wire: Wire, ask: Ask) -> Outcome:
    return await _ask(wire, ask)


async def _ask(
    wire: Wire, ask: Ask, *, head: int = 0, body: int = 0, reads: bool = False
) -> Outcome:
    """Slow for so many first bytes of the head and of the body, and where told of what it reads."""
    since_s = time.monotonic()
    side, start, rest = wire.parts(ask)
    try:
        async with wire.open() as made:
            await _send(made, start, slowly=head)
            await _send(made, rest, slowly=body)
            return await _answer(made, side, ask, since_s, slowly=reads)
    except (OSError, h11.RemoteProtocolError) as error:
        why = type(error).__name__
        return Outcome(ask.kind, "lost", why, since_s, since_s, time.monotonic())


# ----------------------------------------------------------------------------------- vanishing


async def gone_in_upload(wire: Wire, ask: Ask) -> None:
    _, head, body = wire.parts(ask)
    async with wire.open() as made:
        await _send(made, head + body[: len(body) // 2])
        await asyncio.sleep(PAUSE_S)


async def gone_while_waiting(wire: Wire, ask: Ask) -> None:
    _, head, body = wire.parts(ask)
    async with wire.open() as made:
        await _send(made, head + body)
        await asyncio.sleep(PAUSE_S)


async def gone_in_stream(wire: Wire, ask: Ask) -> None:
    """After the first event, where there is one."""
    _, head, body = wire.parts(ask)
    async with wire.open() as made:
        await _send(made, head + body)
        seen = b""
        while b"data: " not in seen:
            data = await asyncio.get_running_loop().sock_recv(made, 1 << 12)
            if not data:
                return
            seen += data


PROMPT: dict[str, Stranger] = {"neither slow nor gone": promptly}
SLOW: dict[str, Stranger] = {
    "headers byte by byte": slow_headers,
    "body byte by byte": slow_body,
    "a stream read byte by byte": slow_reader,
}
VANISHING: dict[str, Stranger] = {
    "in the upload": gone_in_upload,
    "while it waits": gone_while_waiting,
    "in the stream": gone_in_stream,
}


async def beside(
    server: Running, load: Load, strangers: dict[str, Stranger], *, rate_rps: float, seconds: float
) -> dict[str, Any]:
    """Two thirds of this rate as usual and a third from clients of a kind, who ask for the same:
    first prompt ones, then these strangers."""
    without, _, plain = await _with_crowd(server, load, PROMPT, rate_rps, seconds)
    among, counts, own = await _with_crowd(server, load, strangers, rate_rps, seconds)
    return {
        "strangers": counts,
        "theirs": tally(own),
        **tally([*without, *plain, *among, *own]),
        **_compared(without, among),
        "left_behind": await left_behind(server),
    }


async def _with_crowd(
    server: Running, load: Load, strangers: dict[str, Stranger], rate_rps: float, seconds: float
) -> tuple[list[Outcome], dict[str, int], list[Outcome]]:
    """What usual clients met, how many strangers of each kind came, and what those met."""
    crowd = asyncio.create_task(_crowd(server, load, strangers, rate_rps / 3, seconds))
    usual = await load.at(rate_rps * 2 / 3, seconds)
    counts, own = await crowd
    return usual, counts, own


async def _crowd(
    server: Running, load: Load, strangers: dict[str, Stranger], rate_rps: float, seconds: float
) -> tuple[dict[str, int], list[Outcome]]:
    """Strangers of each kind in turn, at even intervals: how many came, and what those that wait
    for an answer were told. They ask for both texts in a stream, where there is most to disturb."""
    wire, end_s = Wire(server.url), time.monotonic() + seconds
    streams = [ask for ask in load.asks if ask.kind == "hybrid-stream"]
    counts, tasks = Counter[str](), []
    for number, name in enumerate(itertools.cycle(strangers)):
        if time.monotonic() > end_s and len(counts) == len(strangers):
            break
        ask = streams[number % len(streams)]
        tasks.append(asyncio.ensure_future(strangers[name](wire, ask)))
        counts[name] += 1
        await asyncio.sleep(1 / rate_rps)
    met = await asyncio.gather(*tasks)
    return dict(counts), [outcome for outcome in met if outcome is not None]


def _compared(without: Sequence[Outcome], among: Sequence[Outcome]) -> dict[str, Any]:
    before, after = latencies(without), latencies(among)
    ratio = after["p95_s"] / before["p95_s"]
    return {
        "without": before,
        "co_residency": after,
        "p95_ratio": ratio,
        "unhurt": ratio <= KNEE_RATIO,
    }


async def left_behind(server: Running) -> float:
    """Requests that still wait or are at work when nobody asks any more: 0, or it never came."""
    end_s = time.monotonic() + QUIET_S
    while True:
        left = 0.0
        for name in ("hybridlab_queue", "hybridlab_at_work"):
            left += sum((await asyncio.to_thread(server.metrics, name)).values())
        if not left or time.monotonic() > end_s:
            return left
        await asyncio.sleep(0.1)


# ------------------------------------------------------------------------------------- hostile


def hostile_requests() -> dict[str, tuple[str, str, bytes]]:
    """Path, content type and body of each, by what it is. The longest audio is 20 minutes."""
    mime = FORM["Content-Type"]

    def upload(data: bytes) -> tuple[str, str, bytes]:
        return "/v1/audio/transcriptions", mime, form(data, {"model": "whisper-1"})

    def chat(data: bytes) -> tuple[str, str, bytes]:
        return "/v1/chat/completions", "application/json", data

    question = chat_body("voxtral", BAD["text"], "What is said?")
    good = upload(GOOD)
    return {
        **{name: upload(data) for name, data in BAD.items()},
        "six hours in a small FLAC": upload(near_silence(6)),
        "an hour of tone in OGG": upload(long_tone(1)),
        "more than an upload may have": upload(b"RIFF" + bytes(30 * MB)),
        "a form cut short": (good[0], mime, good[2][: len(good[2]) // 2]),
        "a form without its border": (good[0], "multipart/form-data", good[2]),
        "a form with another border": (good[0], "multipart/form-data; boundary=other", good[2]),
        "no form": (good[0], mime, b""),
        "no JSON": chat(b"{" * 10_000),
        "deep JSON": chat(b"[" * 100_000),
        "no base64": chat(question.replace(b'"data": "', b'"data": "not base64!')),
        "base64 of no audio": chat(question),
    }


async def hostile(
    server: Running, load: Load, *, rate_rps: float, seconds: float
) -> dict[str, Any]:
    """Usual load, and beside it as many hostile requests, each in turn and at least once."""
    requests = await asyncio.to_thread(hostile_requests)
    without = await load.at(rate_rps, seconds)
    usual = asyncio.create_task(load.at(rate_rps, seconds))
    seen: dict[str, Counter[str]] = {name: Counter() for name in requests}

    async def send(name: str) -> None:
        seen[name][await _status(load.client, *requests[name])] += 1

    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(itertools.cycle(requests)):
            if usual.done() and number >= len(requests):
                break
            group.create_task(send(name))
            await asyncio.sleep(1 / rate_rps)
    among = await usual
    statuses = Counter[str]()
    for found in seen.values():
        statuses.update(found)
    return {
        "kinds": len(requests),
        "sent": statuses.total(),
        "statuses": dict(statuses),
        "by_kind": {name: dict(found) for name, found in seen.items()},
        "all_refused": all(status.startswith("4") for status in statuses),
        **tally([*without, *among]),
        **_compared(without, among),
        "left_behind": await left_behind(server),
    }


async def _status(client: httpx.AsyncClient, path: str, mime: str, body: bytes) -> str:
    try:
        found = await client.post(path, content=body, headers={"Content-Type": mime})
    except httpx.HTTPError as error:
        return type(error).__name__
    return str(found.status_code)
