"""The `openai` client and the real stack, streamed: routes, orchestrator, worker and model. The
worker waits where a test tells it to, so that order is seen and not timed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from hybridlab.audio import load_clips
from hybridlab.models.http_model import chat_body
from hybridlab.server.settings import Settings
from tests.server.in_process import LONG, Served, in_process
from tests.workers_at_work import wait_until

pytestmark = pytest.mark.usefixtures("case_server")
CLIPS = {clip.id: clip for clip in load_clips()}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with in_process(Settings(only="llm", device="cpu")) as running:
        yield running


def ask(served: Served, clip: str = "clip-01", **options: Any) -> Any:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    messages = json.loads(chat_body("", CLIPS[clip].path.read_bytes(), LONG))["messages"]
    return client.chat.completions.create(model="voxtral", messages=messages, **options)


def pieces_of(stream: Any) -> list[str]:
    return [c.choices[0].delta.content for c in stream if c.choices and c.choices[0].delta.content]


def test_chunks_come_before_the_worker_goes_on_and_joined_are_the_whole_answer(
    served: Served, tmp_path: Path
) -> None:
    whole = ask(served)
    go = tmp_path / "go"
    served.pause(go)
    stream = iter(ask(served, stream=True))
    first = [next(stream) for _ in range(3)]  # the role and two pieces
    assert first[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content for chunk in first)
    assert text
    assert served.scheduler.at_work  # the worker waits
    go.touch()
    rest = list(stream)
    assert text + "".join(pieces_of(rest)) == whole.choices[0].message.content
    assert len(pieces_of(rest)) >= 1
    assert rest[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"


def test_clients_whose_answers_are_decoded_together_read_each_their_own(
    served: Served, tmp_path: Path
) -> None:
    """One is at work and waits meanwhile, so that the others are one batch."""
    clips = ["clip-02", "clip-03", "clip-05"]
    whole = [ask(served, clip).choices[0].message.content for clip in clips]
    assert len(set(whole)) == len(clips)
    go = tmp_path / "go"
    served.pause(go)
    before = served.scheduler.counts.batches
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(lambda: pieces_of(ask(served, stream=True)))
        assert wait_until(lambda: bool(served.scheduler.at_work))
        others = [
            pool.submit(lambda clip=clip: pieces_of(ask(served, clip, stream=True)))  # type: ignore[misc]
            for clip in clips
        ]
        assert wait_until(lambda: served.scheduler.queue.count("answer") == len(clips))
        go.touch()
        assert first.result(20)
        assert ["".join(reading.result(20)) for reading in others] == whole
    assert served.scheduler.counts.batches == before + 2


def test_tokens_are_told_whole_and_streamed(served: Served) -> None:
    whole = ask(served)
    usage = whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens == len(whole.choices[0].token_ids) + 1  # and the end
    assert usage.prompt_tokens > 375  # of 30 s of audio
    *chunks, last = ask(served, stream=True, stream_options={"include_usage": True})
    assert (last.choices, last.usage) == ([], usage)
    assert {chunk.usage for chunk in chunks} == {None}
    cut = ask(served, max_tokens=2)
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (2, "length")
    assert cut.usage.prompt_tokens == usage.prompt_tokens


def test_a_worker_killed_in_mid_stream_is_not_seen_in_the_text(served: Served) -> None:
    whole = pieces_of(ask(served, stream=True))
    before = served.scheduler.counts.restarts
    served.kill_in_mid_answer()
    assert pieces_of(ask(served, stream=True)) == whole
    assert served.scheduler.counts.restarts == before + 1


def test_a_client_that_leaves_in_mid_stream_takes_its_job_along(
    served: Served, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    served.pause(go)
    scheduler = served.scheduler
    stream = ask(served, stream=True)
    chunks = iter(stream)
    assert [next(chunks) for _ in range(2)]
    (job,) = scheduler.at_work
    assert job.pending
    stream.close()
    assert wait_until(lambda: not job.pending)
    go.touch()
    assert wait_until(lambda: not scheduler.at_work)
    assert ask(served).choices[0].finish_reason == "stop"  # the next is served as ever
