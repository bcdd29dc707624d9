"""The `openai` client and the real stack, streamed: routes, orchestrator, worker and model. The
worker waits where a test tells it to, so that order is seen and not timed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn

from hybridlab.audio import load_clips
from hybridlab.serve.app import make_app
from hybridlab.serve.service import Service
from hybridlab.serve.settings import Settings
from hybridlab.tenants import remote
from hybridlab.workers import Worker
from tests.serve.test_server import chat
from tests.workers_at_work import wait_until

pytestmark = pytest.mark.usefixtures("case_server")
CLIPS = {clip.id: clip for clip in load_clips()}
WAIT_S = 20.0


@dataclass
class Served:
    service: Service
    client: openai.OpenAI

    @property
    def worker(self) -> Worker:
        assert self.service.pair is not None
        return self.service.pair.tenants[0].remote.worker

    def restarts(self) -> int:
        return self.service.the_engine().lanes["voxtral"].counts.restarts

    def ask(self, **options: Any) -> Any:
        messages: Any = chat(CLIPS["clip-01"])
        messages[0]["content"][1]["text"] = "repeat"
        return self.client.chat.completions.create(model="voxtral", messages=messages, **options)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A Voxtral behind HTTP, in this process and its workers."""
    service = Service(Settings(only="voxtral", device="cpu"))
    config = uvicorn.Config(make_app(service), port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)

    async def serve() -> None:
        await service.start()
        await server.serve()
        await service.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert wait_until(lambda: server.started, timeout_s=60)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        yield Served(service, openai.OpenAI(base_url=url, api_key="none", max_retries=0))
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
    assert not thread.is_alive()


# ---------------------------------------------------------------------------- inside the worker


def before_third_decode(path: str, *, kill: bool) -> None:
    """Let this worker, once, wait for a file or end itself when two tokens are out and the next is
    to be decoded."""
    steps = iter(range(1000))

    def enter(phase: str) -> None:
        if phase.endswith("decode") and next(steps) == 2:
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            deadline = time.monotonic() + WAIT_S
            while not Path(path).exists() and time.monotonic() < deadline:
                time.sleep(0.005)

    remote._the_hosted().tenant.on_phase = enter


# --------------------------------------------------------------------------------------- tests


def pieces_of(stream: Any) -> list[str]:
    return [c.choices[0].delta.content for c in stream if c.choices and c.choices[0].delta.content]


def test_chunks_come_before_the_worker_goes_on_and_joined_are_the_whole_answer(
    served: Served, tmp_path: Path
) -> None:
    whole = served.ask()
    go = tmp_path / "go"
    served.worker.call(before_third_decode, str(go), kill=False)
    stream = iter(served.ask(stream=True))
    first = [next(stream) for _ in range(3)]  # the role and two pieces
    assert first[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content for chunk in first)
    assert text
    assert served.service.the_engine().lanes["voxtral"].at_work  # the worker waits
    go.touch()
    rest = list(stream)
    assert text + "".join(pieces_of(rest)) == whole.choices[0].message.content
    assert len(pieces_of(rest)) >= 1
    assert rest[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"


def test_tokens_are_told_whole_and_streamed(served: Served) -> None:
    whole = served.ask()
    usage = whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens == len(whole.choices[0].token_ids) + 1  # and the end
    assert usage.prompt_tokens > 375  # of 30 s of audio
    *chunks, last = served.ask(stream=True, stream_options={"include_usage": True})
    assert (last.choices, last.usage) == ([], usage)
    assert {chunk.usage for chunk in chunks} == {None}
    cut = served.ask(max_tokens=2)
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (2, "length")
    assert cut.usage.prompt_tokens == usage.prompt_tokens


def test_a_worker_killed_in_mid_stream_is_not_seen_in_the_text(served: Served) -> None:
    whole = pieces_of(served.ask(stream=True))
    before = served.restarts()
    served.worker.call(before_third_decode, "", kill=True)
    assert pieces_of(served.ask(stream=True)) == whole
    assert served.restarts() == before + 1


def test_a_client_that_leaves_in_mid_stream_takes_its_job_along(
    served: Served, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    served.worker.call(before_third_decode, str(go), kill=False)
    lane = served.service.the_engine().lanes["voxtral"]
    stream = served.ask(stream=True)
    chunks = iter(stream)
    assert [next(chunks) for _ in range(2)]
    (job,) = lane.at_work
    assert job.wanted
    stream.close()
    assert wait_until(lambda: not job.wanted)
    go.touch()
    assert wait_until(lambda: not lane.at_work)
    assert served.ask().choices[0].finish_reason == "stop"  # the next is served as ever
