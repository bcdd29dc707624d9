"""Limits of requests, time, memory and connections: those that options set, and the fixed ones."""

from __future__ import annotations

import asyncio
import fcntl
import signal
import subprocess
import sys
import termios
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from benchmarks.endurance.hostile import GOOD
from hybridlab.server.app import create_app
from hybridlab.server.audio_decoder import AudioDecoder, decode_audio
from hybridlab.server.engine import Engine
from hybridlab.server.model_pool import ModelPool
from hybridlab.server.run import listen, make_server
from hybridlab.server.settings import Settings
from hybridlab.units import GB
from tests.server.fakes import Stage, asr, llm, played, until
from tests.server.live import (
    CHAT,
    FORM,
    HYBRID,
    JSON,
    TRANSCRIPTIONS,
    head,
    live,
    part,
    question,
    routes,
    upload,
    wav,
)
from tests.workers_at_work import wait_until


@played
async def test_a_queue_is_of_a_kind() -> None:
    """A transcript by the LLM waits beside an answer where one of each kind may."""
    mind = llm(serve_s=0.05)
    async with Stage(mind, max_queue=1, batch=1) as stage:
        jobs = [stage.ask("at work")]
        await until(lambda: len(mind.calls) == 1)
        jobs += [stage.ask("answer"), stage.ask("heard", kind="transcription")]
        await asyncio.gather(*(job.future for job in jobs))
        assert len(mind.calls) == 3


@played
async def test_an_answer_has_no_more_tokens_than_the_server_allows() -> None:
    mind = llm()
    async with routes(mind, asr(say=lambda job: "heard"), max_new_tokens=9) as (client, _):
        for asked, given in ((None, 9), (5, 5), (10**6, 9)):
            more = {} if asked is None else {"max_tokens": asked}
            await client.post(CHAT, json=question(**more))
            await client.post(HYBRID, **upload(question="Who?", **more))
            assert [params.options.max_new_tokens for params in mind.asked[-2:]] == [given] * 2


@played
async def test_more_in_progress_than_is_fixed_gets_503_and_health_is_told_all_the_same() -> None:
    """4 × max-queue + 64, of which one is heard again when another has gone."""
    async with live(max_queue=2) as server:
        before = server.held()
        begun = head(CHAT, "Content-Length: 9", JSON)
        held = [await server.say(begun) for _ in range(4 * 2 + 64)]
        await until(lambda: server.guard.free_requests == 0)
        full = await server.ask()
        assert (full.status_code, full.json()["error"]["code"]) == (503, "too_many_requests")
        assert full.headers["retry-after"] == "1"
        assert (await server.client.get("/health/ready")).status_code == 200
        held.pop().close()
        await until(lambda: server.guard.free_requests == 1)
        assert (await server.ask()).status_code == 200
        for writer in held:
            writer.close()
        await server.settles(before)


@pytest.mark.parametrize(("max_upload_mb", "held_mb"), [(25, 512), (200, 800)])
def test_uploads_take_512_mb_together_or_four_of_the_largest(
    max_upload_mb: int, held_mb: int
) -> None:
    guard = create_app(Engine(Settings(max_upload_mb=max_upload_mb)))
    assert guard.free_bytes == held_mb * 10**6


@played
async def test_a_form_has_one_file_and_a_hundred_fields() -> None:
    async with routes() as (client, _):
        for count, files, status in ((100, 1, 200), (101, 1, 400), (100, 2, 400)):
            fields = [part(f"f{n}", b"x") for n in range(count - 1)]
            sound = part("file", wav(), '; filename="a.wav"') * files
            body = b"".join([*fields, part("model", b"asr"), sound, b"--b--\r\n"])
            kind = dict([FORM.split(": ", 1)])
            found = await client.post(TRANSCRIPTIONS, content=body, headers=kind)
            assert found.status_code == status, found.text


@pytest.mark.usefixtures("case_server")
def test_requests_have_the_memory_that_is_asked_for_else_what_is_free_or_was_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def budget_of(pool: ModelPool) -> int:
        for model in pool.models:
            model.load()
        pool.measure_budget()
        pool.budget.refresh()
        return pool.budget.n_bytes

    small: dict[str, Any] = {"device": "cpu", "only": "asr", "asr_model": "pocket-s"}
    with closing(ModelPool(Settings(**small, request_memory_gb=0.25))) as pool:
        assert budget_of(pool) == 0.25 * GB
    with closing(ModelPool(Settings(**small))) as pool:
        free = budget_of(pool)
        assert free == pytest.approx(pool.device.free_bytes(), rel=0.2)
        assert free > GB
        # a card without NVML: a worker is asked, between two calls
        monkeypatch.setattr(pool.memory, "free_bytes", lambda: None)
        monkeypatch.setattr(pool.memory, "available_bytes", lambda: None)
        pool.budget.n_bytes = 0
        assert budget_of(pool) == pytest.approx(free, rel=0.2)
        measured = pool.budget.n_bytes
        pool.budget.refresh(idle=True)
        assert pool.budget.n_bytes == measured


@pytest.mark.usefixtures("case_server")
@played
async def test_as_many_decoders_decode_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first waits for a file; with two decoders the second upload does not wait for it."""
    go = tmp_path / "go"
    decoder = AudioDecoder(Settings(decoders=2))
    await decoder.start()
    monkeypatch.setattr("hybridlab.server.audio_decoder.decode_audio", decode_when)
    try:
        first = asyncio.create_task(decoder.decode(str(go).encode()))
        assert (await decoder.decode(GOOD)).seconds == 1
        assert not first.done()
        go.touch()
        assert (await first).seconds == 1
    finally:
        decoder.close()


def decode_when(data: bytes, max_audio_s: float) -> Any:
    """Sound, or the name of a file to wait for."""
    if data.startswith(b"/"):
        while not Path(data.decode()).exists():
            time.sleep(0.005)
        data = GOOD
    return decode_audio(data, max_audio_s)


@played
async def test_a_larger_model_is_waited_for_twice_as_long_after_each_failure() -> None:
    lack = MemoryError("CUDA out of memory")
    ear = asr("medium", "base", plan=[lack, lack])
    async with Stage(ear, retry_larger_after_s=0.1) as stage:
        supervisor = stage.scheduler("asr").supervisor
        tries: list[float] = []
        load = ear.switch_to

        def switch_to(index: int) -> None:
            if index == 0:
                tries.append(time.monotonic())
                raise lack
            load(index)

        ear.switch_to = switch_to  # type: ignore[method-assign]
        began = time.monotonic()
        assert (await stage.ask("a", role="asr").future).model == "whisper-base"
        await until(lambda: len(tries) == 3)
        waits = [after - before for before, after in zip([began, *tries], tries, strict=False)]
        for waited, least in zip(waits, (0.1, 0.2, 0.4), strict=True):
            assert waited >= least * 0.99
        ear.switch_to = load  # type: ignore[method-assign]
        await until(lambda: supervisor.counts.returns_to_larger == 1)


@played
async def test_after_sigterm_stopping_is_told_as_long_as_is_asked_and_then_nobody_is_taken() -> (
    None
):
    mind = llm(serve_s=1.0)
    stage = Stage(mind, asr(), shared=True, drain_s=0.4, port=0)
    async with stage, listening_until_told(stage.engine) as (server, client):
        accepted = asyncio.create_task(client.post(CHAT, json=question()))
        await until(lambda: bool(mind.calls))
        server.handle_exit(signal.SIGTERM, None)
        began, said = time.monotonic(), [""]
        with pytest.raises(httpx.ConnectError):
            while time.monotonic() < began + 5:
                with suppress(httpx.ReadError):  # one that the kernel had taken already
                    sent = await client.post(TRANSCRIPTIONS, **upload(model="asr"))
                    said.append(sent.json().get("error", {"code": ""})["code"])
        assert 0.4 <= time.monotonic() - began < 2
        assert [code for code, _ in groupby(said)] == ["", "stopping"]
        assert (await accepted).status_code == 200


@asynccontextmanager
async def listening_until_told(
    engine: Engine,
) -> AsyncIterator[tuple[uvicorn.Server, httpx.AsyncClient]]:
    """A server that ends by itself, and a client with a connection for each request."""
    with listen(engine.settings) as listener:
        server = make_server(create_app(engine), engine)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        close = {"Connection": "close"}
        async with httpx.AsyncClient(base_url=url, trust_env=False, headers=close) as client:
            yield server, client
        await serving


def waiting_bytes(pipe: Any) -> int:
    """What has been written into it and not read."""
    count = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def test_a_log_whose_pipe_is_full_and_never_read_blocks_the_server() -> None:
    code = (
        "import logging; from hybridlab.server.run import start_log; start_log()\n"
        "for _ in range(5000): logging.getLogger('hybridlab.server').warning('a line' * 9)\n"
        "print('went on', flush=True)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert wait_until(lambda: waiting_bytes(process.stderr) > 60_000)
        time.sleep(0.5)
        assert process.poll() is None
        process.stderr.close()  # nobody can read it any more: its lines are lost
        assert process.stdout is not None
        assert process.stdout.read() == b"went on\n"
        assert process.wait(5) == 0
