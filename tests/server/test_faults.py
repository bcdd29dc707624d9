"""Clients that are slow, vanish or come in crowds, and a clock that jumps: who is served is served
right, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from hybridlab.server import engine
from hybridlab.server.errors import ApiError
from tests.server.fakes import OUT_OF_MEMORY, Stage, asr, llm, played, until
from tests.server.live import (
    CHAT,
    FORM,
    HYBRID,
    TRANSCRIPTIONS,
    form,
    head,
    live,
    message,
    question,
)

LINGER_NOT = struct.pack("ii", 1, 0)


# ------------------------------------------------------------------------------- slow clients


@pytest.mark.parametrize("path", [CHAT, TRANSCRIPTIONS, HYBRID])
@played
async def test_a_body_that_does_not_end_gets_408_and_others_are_served(path: str) -> None:
    async with live(request_timeout_s=0.4) as server:
        before = server.held()
        kind = "Content-Type: application/json" if path == CHAT else FORM
        begun = head(path, "Content-Length: 5000", kind)
        slow = asyncio.create_task(server.exchange(begun, form()[:50]))
        assert (await server.ask()).status_code == 200
        said = await slow
        assert said.startswith(b"HTTP/1.1 408 ")
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "upload_timeout"
        await server.settles(before)


@played
async def test_a_client_that_does_not_read_its_stream_does_not_hold_the_model() -> None:
    # one word, of more than the kernel takes for one who does not read
    model = llm(say=lambda job: "w" * (20 * 10**6 if job.params.question == "long" else 1))
    async with live(model) as server:
        before = server.held()
        lazy = socket.create_connection(("127.0.0.1", server.port))
        lazy.sendall(message(CHAT, json.dumps(question("long", stream=True)).encode()))
        await until(lambda: ["long"] in model.calls)
        assert (await server.ask()).status_code == 200
        lazy.close()
        await server.settles(before)


@played
async def test_uploads_together_are_bounded_and_their_bytes_are_free_again() -> None:
    async with live(max_upload_mb=0.1, held_bytes=0) as server:
        before = server.held()
        begun = head(CHAT, "Content-Length: 99000", "Content-Type: application/json")
        held = [await server.say(begun, b" " * 90_000) for _ in range(4)]
        await until(lambda: server.guard.free_bytes < 50_000)
        answer = await server.client.post(
            CHAT, content=b" " * 60_000, headers={"Connection": "close"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "uploads_full")
        assert answer.headers["retry-after"] == "1"
        for writer in held:
            writer.close()
        await server.settles(before)
        assert (await server.ask()).status_code == 200


@played
async def test_decoded_audio_is_bounded_over_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_DECODED_S", 10.0)
    async with Stage(llm(serve_s=0.05)) as stage:
        alone = stage.ask("longer than the bound, alone", seconds=20)
        with pytest.raises(ApiError) as caught:
            stage.ask("beside it", seconds=1)
        assert (caught.value.status_code, caught.value.code) == (429, "queue_full")
        await alone.future
        both = [stage.ask("a", seconds=5), stage.ask("b", seconds=5)]
        with pytest.raises(ApiError):
            stage.ask("c", seconds=1)
        await asyncio.gather(*(job.future for job in both))
        assert (await stage.ask("c", seconds=1).future).text == "said c"


# ------------------------------------------------------------------------------ who goes away


async def leave(writer: asyncio.StreamWriter, *, rudely: bool) -> None:
    if rudely:  # a reset instead of an end
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("rudely", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("stage", ["head", "upload", "waiting", "at work", "stream"])
@played
async def test_a_client_that_vanishes_leaves_nothing_behind(stage: str, rudely: bool) -> None:
    model = llm(serve_s=0.1)
    async with live(model, asr(say=lambda job: "heard"), max_queue=1, batch=1) as server:
        scheduler, before = server.scheduler(), server.held()
        first = asyncio.ensure_future(server.ask("first")) if stage == "waiting" else None
        if first:
            model.serve_s = 1.0  # until the other one has come and gone
            await until(lambda: ["first"] in model.calls)
            model.serve_s = 0.05
        whole = message(CHAT, json.dumps(question("gone")).encode())
        streamed = message(HYBRID, form(question="gone", stream="true"), FORM)
        sent = {"head": whole[:40], "upload": whole[:9000], "stream": streamed}
        reader, writer = await server.connect()
        writer.write(sent.get(stage, whole))
        match stage:
            case "upload":
                await until(lambda: server.guard.free_bytes < before["free bytes of uploads"])
            case "waiting":
                await until(lambda: scheduler.queue.count("answer") == 1)
                assert (await server.ask()).status_code == 429  # the place is taken
            case "at work":
                await until(lambda: bool(scheduler.at_work))
            case "stream":
                await reader.readuntil(b"event: transcript")
                await until(lambda: bool(scheduler.at_work))
        await leave(writer, rudely=rudely)
        if first:
            await until(lambda: not any(job.pending for job in scheduler.queue.jobs()))
            assert scheduler.at_work  # the place is free before the first has ended
            second = asyncio.ensure_future(server.ask("second"))
            said = [(await job).json()["choices"][0] for job in (first, second)]
            assert [one["message"]["content"] for one in said] == ["said first", "said second"]
            assert ["gone"] not in model.calls
        await server.settles(before)
        assert (await server.ask()).status_code == 200


@played
async def test_a_crowd_gets_right_answers_or_a_time_to_come_again() -> None:
    """More than the queue, and more than may be under way at once."""
    async with live(llm(serve_s=0.005), max_queue=4, batch=2) as server:
        before = server.held()

        async def one(index: int) -> int:
            answer = await server.ask(f"question {index}")
            if answer.status_code == 200:
                text = answer.json()["choices"][0]["message"]["content"]
                assert text == f"said question {index}"
            else:
                assert answer.json()["error"]["code"] in ("queue_full", "too_many_requests")
                assert int(answer.headers["retry-after"]) >= 1
            return answer.status_code

        found = await asyncio.gather(*(one(index) for index in range(95)))
        assert set(found) == {200, 429, 503}, set(found)
        assert found.count(200) >= 4
        await server.settles(before)
        assert await one(0) == 200


# ------------------------------------------------------------------------- clock, log


class Clock:
    """A wall clock that an operator or NTP has just set by hours, again and again."""

    def __init__(self) -> None:
        self.looks = 0
        self._true = time.time

    def __call__(self) -> float:
        self.looks += 1
        return self._true() + (-1) ** self.looks * 6 * 3600


@played
async def test_a_wall_clock_that_jumps_changes_no_deadline_and_no_way_back_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    mind = llm()
    lack = MemoryError(OUT_OF_MEMORY)
    ear = asr("pocket-m", "pocket-s", plan=[lack, lack])  # tried again once
    async with live(mind, ear, request_timeout_s=0.5, retry_larger_after_s=0.3) as server:
        began = time.monotonic()
        said = await server.stage.ask("a", role="asr").future
        assert said.instead_of == "whisper-pocket-m"
        assert 0 <= said.queue_time_s + said.work_s < 5
        await until(lambda: server.scheduler("asr").counts.returns_to_larger == 1)
        assert 0.3 <= time.monotonic() - began < 5
        mind.serve_s = 60
        began = time.monotonic()
        assert (await server.ask()).status_code == 504
        assert 0.4 <= time.monotonic() - began < 5
        assert clock.looks > 4


@played
async def test_retry_after_is_of_the_pace_and_not_of_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", Clock())
    async with Stage(llm(serve_s=0.05), max_queue=4, batch=1) as stage:
        await stage.ask("pace").future
        jobs = [stage.ask("at work")]
        await until(lambda: bool(stage.scheduler().at_work))
        jobs += [stage.ask(str(index)) for index in range(4)]
        with pytest.raises(ApiError) as caught:
            stage.ask("too many")
        assert (caught.value.status_code, caught.value.retry_after_s) == (429, 1)
        await asyncio.gather(*(job.future for job in jobs))


def test_a_log_on_a_full_disk_costs_the_line_and_nothing_else() -> None:
    code = (
        "import logging; from hybridlab.server.run import start_log; start_log()\n"
        "for _ in range(3): logging.getLogger('hybridlab.server').warning('a line')\n"
        "print('went on')"
    )
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.stdout == "went on\n"
