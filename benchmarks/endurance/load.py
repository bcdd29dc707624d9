"""Requests of every kind, each with the text that is right, and what became of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import httpx
import numpy as np

from benchmarks.serve import FORM, form
from hybridlab.audio import Clip
from hybridlab.models.http_model import chat_body

QUESTION = "What is said?"
MAX_TOKENS = 40
KINDS = ("transcription", "chat", "chat-stream", "hybrid", "hybrid-stream")
#: Statuses by which a server says that it takes no request now.
REFUSING = (429, 503)
TIMEOUT_S = 120.0
#: `right`: the text of the models alone. `refused`: told so, with a code. `lost`: anything else,
#: be it no answer, half of one, or a fault.
Fate = Literal["right", "wrong", "refused", "lost"]


@dataclass(frozen=True)
class Ask:
    """A request as it goes over the wire. `expected` of a hybrid one: transcript, line, answer."""

    kind: str
    path: str
    content_type: str
    body: bytes
    expected: str

    @property
    def streams(self) -> bool:
        return self.kind.endswith("-stream")


def asks_of(clip: Clip, transcript: str, answer: str) -> list[Ask]:
    """One of each kind over this clip."""
    audio = clip.path.read_bytes()
    asked = {"question": QUESTION, "max_tokens": str(MAX_TOKENS)}
    both, mime = f"{transcript}\n{answer}", FORM["Content-Type"]
    json_mime = "application/json"

    def chat(**options: Any) -> bytes:
        return chat_body("voxtral", audio, QUESTION, max_tokens=MAX_TOKENS, **options)

    bodies = {
        "transcription": ("audio/transcriptions", mime, form(audio, {"model": "whisper-1"})),
        "chat": ("chat/completions", json_mime, chat()),
        "chat-stream": ("chat/completions", json_mime, chat(stream=True)),
        "hybrid": ("hybrid", mime, form(audio, asked)),
        "hybrid-stream": ("hybrid", mime, form(audio, {**asked, "stream": "true"})),
    }
    expected = {"transcription": transcript, "chat": answer, "hybrid": both}
    return [
        Ask(kind, f"/v1/{path}", mime, body, expected[kind.removesuffix("-stream")])
        for kind, (path, mime, body) in bodies.items()
    ]


# ----------------------------------------------------------------------------------- judgement


@dataclass(frozen=True)
class Outcome:
    """Times are those of `time.monotonic`; a latency counts from when the request was due."""

    kind: str
    fate: Fate
    why: str
    due_s: float
    sent_s: float
    done_s: float

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s


def judged(ask: Ask, status: int, headers: Any, text: str) -> tuple[Fate, str]:
    """A response's fate, and why: the code of a refusal, what is wrong with anything else."""
    try:
        if status != 200:
            code = str(json.loads(text)["error"]["code"])
            if status not in REFUSING:
                return "lost", f"{status} {code}"
            if status == 429 and "retry-after" not in headers:
                return "lost", "429 without Retry-After"
            return "refused", code
        found = _streamed(ask, text) if ask.streams else _whole(ask, json.loads(text))
    except _RefusedError as error:
        return "refused", str(error)
    except (ValueError, KeyError, IndexError) as error:
        return "lost", f"{status}: {error!r}"
    return ("right", "") if found == ask.expected else ("wrong", found)


class _RefusedError(Exception):
    """Within a stream that had begun."""


def _whole(ask: Ask, body: dict[str, Any]) -> str:
    if ask.kind == "transcription":
        return str(body["text"])
    if ask.kind == "chat":
        return str(body["choices"][0]["message"]["content"])
    return f"{body['transcript']['text']}\n{body['answers'][0]['text']}"


def _streamed(ask: Ask, text: str) -> str:
    """`ValueError` for a stream without its end."""
    events = list(_events(text))
    for _, data in events:
        if "error" in data:
            raise _RefusedError(data["error"]["code"])
    if ask.kind == "chat-stream":
        if not text.rstrip().endswith("data: [DONE]"):
            raise ValueError("a stream without its end")
        return "".join(d["choices"][0]["delta"].get("content") or "" for _, d in events)
    parts = dict(events)
    if "done" not in parts:
        raise ValueError("a stream without its end")
    return f"{parts['transcript']['text']}\n{parts['answer']['text']}"


def _events(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of each server-sent event but the last of a chat."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if fields.get("data", "[DONE]") != "[DONE]":
            yield fields.get("event", ""), json.loads(fields["data"])


# ---------------------------------------------------------------------------------------- load


async def send(client: httpx.AsyncClient, ask: Ask, due_s: float | None = None) -> Outcome:
    sent_s = time.monotonic()
    try:
        response = await client.post(
            ask.path, content=ask.body, headers={"Content-Type": ask.content_type}
        )
        fate, why = judged(ask, response.status_code, response.headers, response.text)
    except httpx.HTTPError as error:
        fate, why = "lost", type(error).__name__
    due_s = sent_s if due_s is None else due_s
    return Outcome(ask.kind, fate, why, due_s, sent_s, time.monotonic())


class Load:
    """Asks drawn at random, sent at random times: the same ones for the same seed. Its connections
    last as long as it does: `async with`."""

    def __init__(self, url: str, asks: Sequence[Ask], seed: int, *, keep_alive: int = 32) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=keep_alive)
        self.client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits)
        self.asks = asks
        self._drawn = np.random.default_rng(seed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    def next(self) -> Ask:
        return self.asks[int(self._drawn.integers(len(self.asks)))]

    async def at(self, rate_rps: float, seconds: float) -> list[Outcome]:
        """Poisson arrivals that wait for nobody (an open loop); returns when all have ended."""
        due_s, tasks = time.monotonic(), []
        end_s = due_s + seconds
        while (due_s := due_s + float(self._drawn.exponential(1 / rate_rps))) < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            tasks.append(asyncio.create_task(send(self.client, self.next(), due_s)))
        return list(await asyncio.gather(*tasks))

    async def closed(self, clients: int, seconds: float) -> list[Outcome]:
        """Clients that each send the next request when the last is answered."""
        end_s = time.monotonic() + seconds

        async def one() -> list[Outcome]:
            found = []
            while time.monotonic() < end_s:
                found.append(await send(self.client, self.next()))
            return found

        return [o for own in await asyncio.gather(*(one() for _ in range(clients))) for o in own]


# ------------------------------------------------------------------------------------- figures


def tally(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Requests by fate; refusals by code, lost and wrong ones with what was seen."""
    found = list(outcomes)
    fates = Counter(outcome.fate for outcome in found)
    whys = {
        fate: dict(Counter(o.why for o in found if o.fate == fate))
        for fate in ("refused", "lost", "wrong")
    }
    return {
        "requests": len(found),
        "right": fates["right"],
        "refused": fates["refused"],
        "refused_by_code": whys["refused"],
        "wrong": fates["wrong"],
        "lost": fates["lost"],
        "seen": {**whys["lost"], **whys["wrong"]},
    }


def latencies(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Of those that were answered right: n, median and 95th percentile in seconds."""
    seconds = [outcome.latency_s for outcome in outcomes if outcome.fate == "right"]
    if not seconds:
        return {"n": 0, "p50_s": float("nan"), "p95_s": float("nan")}
    p50, p95 = np.quantile(seconds, (0.5, 0.95))
    return {"n": len(seconds), "p50_s": float(p50), "p95_s": float(p95)}
