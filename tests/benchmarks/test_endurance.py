"""The judge of the endurance benchmark: it must see what a bad server does."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.endurance.load import Load, Outcome, asks_of, latencies, send, tally
from benchmarks.endurance.verdict import failures
from hybridlab.audio import load_clips
from tools.readme import ENDURED, endurance_table

ASKS = {ask.kind: ask for ask in asks_of(load_clips()[0], "a b", "c")}
Answer = Callable[[httpx.Request], httpx.Response]


def asked(kind: str, answer: Answer) -> Outcome:
    """What the benchmark makes of a server that answers so."""

    async def run() -> Outcome:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await send(client, ASKS[kind])

    return asyncio.run(run())


def fate(kind: str, text: str, status: int = 200, **headers: str) -> tuple[str, str]:
    found = asked(kind, lambda _: httpx.Response(status, text=text, headers=headers))
    return found.fate, found.why


def refusal(code: str) -> str:
    return json.dumps({"error": {"code": code}})


def chunk(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


def test_only_the_text_of_the_models_alone_is_right() -> None:
    assert fate("transcription", '{"text": "a b"}') == ("right", "")
    assert fate("transcription", '{"text": "a"}') == ("wrong", "a")
    assert fate("transcription", '{"no": 1}')[0] == "lost"
    chat = '{"choices": [{"message": {"content": "%s"}}]}'
    assert fate("chat", chat % "c") == ("right", "")
    assert fate("chat", chat % "d") == ("wrong", "d")
    hybrid = '{"transcript": {"text": "a b"}, "answers": [{"text": "%s"}]}'
    assert fate("hybrid", hybrid % "c") == ("right", "")
    assert fate("hybrid", hybrid % "d")[0] == "wrong"


def test_a_stream_is_right_when_it_has_come_to_its_end() -> None:
    end = "data: [DONE]\n\n"
    assert fate("chat-stream", chunk("") + chunk("c") + end) == ("right", "")
    assert fate("chat-stream", chunk("c")) == (
        "lost",
        "200: ValueError('a stream without its end')",
    )
    assert fate("chat-stream", chunk("x") + end) == ("wrong", "x")
    parts = 'event: transcript\ndata: {"text": "a b"}\n\nevent: answer\ndata: {"text": "c"}\n\n'
    assert fate("hybrid-stream", parts + "event: done\ndata: {}\n\n") == ("right", "")
    assert fate("hybrid-stream", parts)[0] == "lost"
    failed = f"event: error\ndata: {refusal('worker_lost')}\n\n"
    assert fate("hybrid-stream", parts + failed) == ("refused", "worker_lost")


def test_a_refusal_is_told_from_a_loss() -> None:
    full = refusal("queue_full")
    assert fate("chat", full, 429, **{"Retry-After": "2"}) == ("refused", "queue_full")
    assert fate("chat", full, 429) == ("lost", "429 without Retry-After")
    assert fate("chat", refusal("stopping"), 503) == ("refused", "stopping")
    assert fate("chat", "Service Unavailable", 503)[0] == "lost"
    assert fate("chat", refusal("fault"), 500) == ("lost", "500 fault")
    assert fate("chat", refusal("bad_audio"), 400) == ("lost", "400 bad_audio")

    def cut(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("cut")

    assert (asked("chat", cut).fate, asked("chat", cut).why) == ("lost", "ReadError")


def test_figures_count_every_request_once_and_latency_from_when_it_was_due() -> None:
    fates = [("right", ""), ("right", ""), ("refused", "queue_full"), ("lost", "x"), ("wrong", "y")]
    outcomes = [
        Outcome("chat", fate, why, 0.0, 1.0, 2.0 + n)  # type: ignore[arg-type]
        for n, (fate, why) in enumerate(fates)
    ]
    found = tally(outcomes)
    assert found == {
        "requests": 5,
        "right": 2,
        "refused": 1,
        "refused_by_code": {"queue_full": 1},
        "wrong": 1,
        "lost": 1,
        "seen": {"x": 1, "y": 1},
    }
    assert latencies(outcomes) == {"n": 2, "p50_s": 2.5, "p95_s": pytest.approx(2.95)}


def test_the_same_seed_asks_the_same() -> None:
    async def run() -> list[str]:
        async with Load("http://127.0.0.1:9", list(ASKS.values()), 3) as load:
            return [load.next().kind for _ in range(20)]

    first = asyncio.run(run())
    assert first == asyncio.run(run())
    assert len(set(first)) > 1


# ----------------------------------------------------------------------------- what is published


@pytest.fixture
def published(project: Path) -> dict[str, Any]:
    path = project / "outputs" / "reference" / "benchmarks" / "endurance.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture
def endured(published: dict[str, Any]) -> dict[str, Any]:
    """The published run as if its other clients had not noticed the strangers."""
    for strangers in ("slow", "vanishing", "hostile"):
        published[strangers]["unhurt"] = True
    assert failures(published) == []
    return published


def test_what_is_published_says_its_faults_and_nothing_was_lost(published: dict[str, Any]) -> None:
    assert published["failures"] == failures(published)
    assert {published[name][fate] for name in ENDURED for fate in ("wrong", "lost")} == {0}


@pytest.mark.parametrize(
    ("part", "key", "value", "line"),
    [
        ("soak", "lost", 2, "soak: 2 lost"),
        ("kill decoder", "wrong", 1, "kill decoder: 1 wrong"),
        ("burst", "refused", 0, "burst: nothing was refused"),
        ("burst", "back_to_normal", False, "burst: latency did not"),
        ("slow", "left_behind", 1.0, "slow: 1 requests never ended"),
        ("vanishing", "unhurt", False, "vanishing: p95"),
        ("hostile", "all_refused", False, "hostile: not all"),
        ("kill asr", "answers_again_s", None, "kill asr: it did not come back"),
        ("kill llm", "others_untouched", False, "kill llm: another process"),
        ("sigterm", "exit_code", 1, "sigterm: exit code 1"),
    ],
)
def test_each_fault_fails_the_run(
    endured: dict[str, Any], part: str, key: str, value: object, line: str
) -> None:
    found = copy.deepcopy(endured)
    found[part][key] = value
    (told,) = failures(found)
    assert told.startswith(line)


def test_memory_and_descriptors_that_grow_fail_the_run(endured: dict[str, Any]) -> None:
    found = copy.deepcopy(endured)
    held = {"trend": "grows", "gain_interval_bytes": [2**20, 2**21]}
    found["soak"]["held"]["asr"] = held
    found["at_rest"]["kill decoder"]["descriptors"] += 1 + found["at_rest"]["knee"]["descriptors"]
    memory, descriptors = failures(found)
    assert "the memory of asr grows by 1" in memory
    assert descriptors.startswith("descriptors at rest grow")


def test_the_readme_s_table_is_made_of_what_is_published(
    published: dict[str, Any], project: Path
) -> None:
    _, _, *rows = (line for line in endurance_table(project).splitlines() if line.startswith("|"))
    assert len(rows) == len(ENDURED)
    for line in published["failures"]:
        assert f"**Not passed:** {line}" in endurance_table(project)
    for row, name in zip(rows, ENDURED, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        counts = [published[name][fate] for fate in ("right", "refused", "wrong", "lost")]
        assert [int(cell.replace(",", "")) for cell in cells[1:5]] == counts
