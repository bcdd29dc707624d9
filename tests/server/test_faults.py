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

from hybridlab.server import door, engine
from hybridlab.server.refusals import RefusalError
from tests.server.fakes import OUT_OF_MEMORY, Stage, until, voxtral, whisper
from tests.server.live import asking, head, live, message, play
from tests.server.test_routes import CHAT, HYBRID, TRANSCRIPTIONS, wav

FORM = "Content-Type: multipart/form-data; boundary=b"
LINGER_NOT = struct.pack("ii", 1, 0)


def part(name: str, data: bytes, more: str = "") -> bytes:
    return (
        f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
        + data
        + b"\r\n"
    )


def form(**fields: str) -> bytes:
    """A multipart body of an upload and these fields."""
    parts = [part(name, value.encode()) for name, value in fields.items()]
    return b"".join([*parts, part("file", wav(), '; filename="a.wav"'), b"--b--\r\n"])


# ------------------------------------------------------------------------------- slow clients


def test_a_head_that_comes_byte_by_byte_is_cut_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "SILENCE_S", 0.3)

    async def drip(writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for byte in head(CHAT, "X-Slow: " + "a" * 1000):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

    async def scene() -> None:
        async with live() as server:
            before = server.held()
            slow = [await server.connect() for _ in range(20)]
            drips = [asyncio.create_task(drip(writer)) for _, writer in slow]
            assert (await server.ask()).status_code == 200
            for reader, writer in slow:
                with suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 3) == b""
                writer.close()
            for task in drips:
                task.cancel()
            await asyncio.gather(*drips, return_exceptions=True)
            await server.settles(before)

    play(scene)


def test_a_connection_at_work_is_not_cut_for_its_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SILENCE_S", 0.1)

    async def scene() -> None:
        async with live(voxtral(serve_s=0.4)) as server:
            assert (await server.ask()).status_code == 200

    play(scene)


@pytest.mark.parametrize("path", [CHAT, TRANSCRIPTIONS, HYBRID])
def test_a_body_that_does_not_end_gets_408_and_others_are_served(path: str) -> None:
    async def scene() -> None:
        async with live(upload_timeout_s=0.4) as server:
            before = server.held()
            kind = "Content-Type: application/json" if path == CHAT else FORM
            begun = head(path, "Content-Length: 5000", kind)
            slow = asyncio.create_task(server.exchange(begun, form()[:50]))
            assert (await server.ask()).status_code == 200
            said = await slow
            assert said.startswith(b"HTTP/1.1 408 ")
            assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "upload_timeout"
            await server.settles(before)

    play(scene)


def test_who_does_not_read_a_stream_holds_neither_the_tenant_nor_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "SILENCE_S", 0.3)

    async def scene() -> None:
        # one word, of more than the kernel takes for one who does not read
        tenant = voxtral(say=lambda job: "w" * (20 * 10**6 if job.question == "long" else 1))
        async with live(tenant) as server:
            before = server.held()
            lazy = socket.create_connection(("127.0.0.1", server.port))
            lazy.sendall(message(CHAT, json.dumps(asking("long", stream=True)).encode()))
            await until(lambda: ["long"] in tenant.calls)
            assert (await server.ask()).status_code == 200
            await server.settles({**before, "files": before["files"] + 1})  # the client's own
            lazy.close()
            await server.settles(before)

    play(scene)


def test_uploads_together_are_bounded_and_their_bytes_are_free_again() -> None:
    async def scene() -> None:
        async with live(max_upload_bytes=10**5, held_bytes=0) as server:
            before = server.held()
            begun = head(CHAT, "Content-Length: 99000", "Content-Type: application/json")
            held = [await server.say(begun, b" " * 90_000) for _ in range(4)]
            await until(lambda: server.gate.free_bytes < 50_000)
            answer = await server.client.post(
                CHAT, content=b" " * 60_000, headers={"Connection": "close"}
            )
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "uploads_full")
            assert answer.headers["retry-after"] == "1"
            for writer in held:
                writer.close()
            await server.settles(before)
            assert (await server.ask()).status_code == 200

    play(scene)


def test_idle_connections_are_bounded_and_shut_nobody_out_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "most_connections", lambda: 10)
    monkeypatch.setattr(door, "SILENCE_S", 0.5)

    async def scene() -> None:
        async with live() as server:
            before = server.held()
            idle = [await server.connect() for _ in range(30)]
            assert (await server.exchange(message())) == b""  # no place, and no handle taken
            cut = [reader.at_eof() or reader.exception() for reader, _ in idle]
            assert sum(map(bool, cut)) == 20
            await until(lambda: all(reader.at_eof() or reader.exception() for reader, _ in idle))
            assert (await server.ask()).status_code == 200
            for _, writer in idle:
                writer.close()
            await server.settles(before)

    play(scene)


def test_decoded_audio_is_bounded_over_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "HELD_AUDIO_S", 10.0)

    async def scene() -> None:
        async with Stage(voxtral(serve_s=0.05)) as stage:
            alone = stage.ask("longer than the bound, alone", seconds=20)
            with pytest.raises(RefusalError) as caught:
                stage.ask("beside it", seconds=1)
            assert (caught.value.status, caught.value.code) == (429, "queue_full")
            await alone.future
            both = [stage.ask("a", seconds=5), stage.ask("b", seconds=5)]
            with pytest.raises(RefusalError):
                stage.ask("c", seconds=1)
            await asyncio.gather(*(job.future for job in both))
            assert (await stage.ask("c", seconds=1).future).text == "said c"

    play(scene)


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
def test_a_client_that_vanishes_leaves_nothing_behind(stage: str, rudely: bool) -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=0.1)
        async with live(tenant, whisper(say=lambda job: "heard"), queue=1, batch=1) as server:
            lane, before = server.lane(), server.held()
            first = asyncio.ensure_future(server.ask("first")) if stage == "waiting" else None
            if first:
                tenant.serve_s = 1.0  # until the other one has come and gone
                await until(lambda: ["first"] in tenant.calls)
                tenant.serve_s = 0.05
            whole = message(CHAT, json.dumps(asking("gone")).encode())
            streamed = message(HYBRID, form(question="gone", stream="true"), FORM)
            sent = {"head": whole[:40], "upload": whole[:9000], "stream": streamed}
            reader, writer = await server.connect()
            writer.write(sent.get(stage, whole))
            match stage:
                case "upload":
                    await until(lambda: server.gate.free_bytes < before["free bytes of uploads"])
                case "waiting":
                    await until(lambda: lane.waiting.count("answer") == 1)
                    assert (await server.ask()).status_code == 429  # the place is taken
                case "at work":
                    await until(lambda: bool(lane.at_work))
                case "stream":
                    await reader.readuntil(b"event: transcript")
                    await until(lambda: bool(lane.at_work))
            await leave(writer, rudely=rudely)
            if first:
                await until(lambda: not any(job.wanted for job in lane.waiting.jobs()))
                assert lane.at_work  # the place is free before the first has ended
                second = asyncio.ensure_future(server.ask("second"))
                said = [(await job).json()["choices"][0] for job in (first, second)]
                assert [one["message"]["content"] for one in said] == ["said first", "said second"]
                assert ["gone"] not in tenant.calls
            await server.settles(before)
            assert (await server.ask()).status_code == 200

    play(scene)


def test_a_crowd_gets_right_answers_or_a_time_to_come_again() -> None:
    """More than the queue, and more than may be under way at once."""

    async def scene() -> None:
        async with live(voxtral(serve_s=0.005), queue=4, batch=2) as server:
            before = server.held()

            async def one(index: int) -> int:
                answer = await server.ask(f"question {index}")
                if answer.status_code == 200:
                    text = answer.json()["choices"][0]["message"]["content"]
                    assert text == f"said question {index}"
                else:
                    assert answer.json()["error"]["code"] in ("queue_full", "crowded")
                    assert int(answer.headers["retry-after"]) >= 1
                return answer.status_code

            found = await asyncio.gather(*(one(index) for index in range(95)))
            assert set(found) == {200, 429, 503}, set(found)
            assert found.count(200) >= 4
            await server.settles(before)
            assert await one(0) == 200

    play(scene)


# ------------------------------------------------------------------------- clock, log


class Clock:
    """A wall clock that an operator or NTP has just set by hours, again and again."""

    def __init__(self) -> None:
        self.looks = 0
        self._true = time.time

    def __call__(self) -> float:
        self.looks += 1
        return self._true() + (-1) ** self.looks * 6 * 3600


def test_a_wall_clock_that_jumps_changes_no_deadline_and_no_way_back_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)

    async def scene() -> None:
        mind = voxtral()
        lack = MemoryError(OUT_OF_MEMORY)
        ear = whisper("pocket-m", "pocket-s", plan=[lack, lack])  # tried again once
        async with live(mind, ear, request_timeout_s=0.5, climb_after_s=0.3) as server:
            began = time.monotonic()
            said = await server.stage.ask("a", tenant="whisper").future
            assert said.instead_of == "whisper-pocket-m"
            assert 0 <= said.waited_s + said.worked_s < 5
            await until(lambda: server.lane("whisper").counts.climbs == 1)
            assert 0.3 <= time.monotonic() - began < 5
            mind.serve_s = 60
            began = time.monotonic()
            assert (await server.ask()).status_code == 504
            assert 0.4 <= time.monotonic() - began < 5
            assert clock.looks > 4

    play(scene)


def test_retry_after_is_of_the_pace_and_not_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", Clock())

    async def scene() -> None:
        async with Stage(voxtral(serve_s=0.05), queue=4, batch=1) as stage:
            await stage.ask("pace").future
            jobs = [stage.ask("at work")]
            await until(lambda: bool(stage.engine.lanes["voxtral"].at_work))
            jobs += [stage.ask(str(index)) for index in range(4)]
            with pytest.raises(RefusalError) as caught:
                stage.ask("too many")
            assert (caught.value.status, caught.value.retry_after_s) == (429, 1)
            await asyncio.gather(*(job.future for job in jobs))

    play(scene)


def test_a_log_on_a_full_disk_costs_the_line_and_nothing_else() -> None:
    code = (
        "import logging; from hybridlab.server.door import start_log; start_log()\n"
        "for _ in range(3): logging.getLogger('hybridlab.server').warning('a line')\n"
        "print('went on')"
    )
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.stdout == "went on\n"
