"""How texts end is in a case's rows, and a text that was cut short is held against nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridlab.experiments.case_context import text_columns
from hybridlab.experiments.plans import strategy_comparison
from hybridlab.experiments.workloads.serve import parity
from hybridlab.experiments.workloads.soak import _tokens
from hybridlab.models.base import GenerationResult
from hybridlab.models.transcription import FINISH_REASONS
from hybridlab.reporting import key_findings
from tests.sessions import arms, assert_ok, later, open_session

SAID = GenerationResult("one two", (1, 2), "stop")
OTHER = GenerationResult("one", (1,), "stop")


def cut(said: GenerationResult) -> GenerationResult:
    return replace(said, finish_reason="length")


def alone(said: GenerationResult) -> dict[str, Any]:
    return {"tokens": list(said.tokens), "finish": said.finish_reason}


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        ((SAID, SAID), (SAID, SAID), True),
        ((SAID, SAID), (OTHER, SAID), False),
        ((SAID, SAID), (SAID, OTHER), False),
        ((cut(SAID), SAID), (cut(SAID), SAID), None),
        ((SAID, cut(SAID)), (SAID, cut(SAID)), None),
        ((SAID, SAID), (cut(SAID), SAID), None),
        # what is known to differ is not made good by what is not known
        ((cut(SAID), SAID), (cut(SAID), OTHER), False),
    ],
)
def test_texts_that_were_cut_are_neither_equal_nor_not(
    then: Sequence[GenerationResult], now: Sequence[GenerationResult], same: bool | None
) -> None:
    device = SimpleNamespace(name="cpu")
    strategy: Any = SimpleNamespace(
        name="sequential", device=device, asr=SimpleNamespace(device=device)
    )
    spec: Any = SimpleNamespace(id="q", clip_id="c")
    served: Any = SimpleNamespace(transcript=now[0], answer=now[1])
    expected = {"asr/c": alone(then[0]), "answer/q": alone(then[1])}
    assert parity(expected, strategy, spec, served) is same
    assert parity({}, strategy, spec, served) is None


def test_a_soak_compares_whole_texts_only() -> None:
    def served(transcript: GenerationResult, answer: GenerationResult) -> Any:
        return SimpleNamespace(transcript=transcript, answer=answer)

    assert _tokens(served(SAID, OTHER)) == ((1, 2), (1,))
    assert _tokens(served(cut(SAID), OTHER)) is None
    assert _tokens(served(SAID, cut(OTHER))) is None


def test_windows_are_counted_where_they_are_told() -> None:
    long = replace(SAID, windows=FINISH_REASONS, finish_reason="early")
    found = text_columns(long, SAID)
    assert (found["transcript_windows"], found["transcript_windows_cut"]) == (3, 2)
    assert (found["transcript_finish"], found["answer_finish"]) == ("early", "stop")
    assert text_columns(SAID, None)["transcript_windows"] is None
    assert set(text_columns(None, None).values()) == {None}


def test_a_race_of_texts_that_are_cut_has_no_error_rate_and_no_parity(tmp_path: Path) -> None:
    session = open_session(tmp_path, asr_max_new_tokens=2)
    rows = strategy_comparison.run(session, arms("sequential/plain"), rounds=1)
    assert_ok(rows, 2)
    trials = session.table("trials")
    heard = trials[~((trials["strategy"] == "reference") & (trials["variant"] == "llm"))]
    assert set(heard["transcript_finish"]) == {"length"}
    assert (heard["transcript_windows_cut"] == heard["transcript_windows"]).all()
    race = later(trials[trials["experiment"] == "strategy_comparison"])
    assert len(race) == 2 and race["output_matches_reference"].isna().all()
    assert set(race["answer_finish"]) == {"stop"}
    cases = session.table("cases")
    assert set(cases["asr_decoding"]) == {"plain"}
    said = key_findings.strategy_comparison(cases, trials)
    assert sum("transcripts cut at the limit of tokens" in line for line in said) == 1


def test_random_weights_end_in_no_way(tmp_path: Path) -> None:
    session = open_session(
        tmp_path, asr_model="tiny", asr_weights="random", asr_max_new_tokens=3, trials=1
    )
    rows = strategy_comparison.run(session, arms("sequential/plain"), rounds=1)
    assert_ok(rows, 2)
    trials = session.table("trials")
    race = later(trials[trials["experiment"] == "strategy_comparison"])
    assert race["transcript_finish"].isna().all()  # and yet its tokens are compared
    assert race["output_matches_reference"].astype(bool).all()
