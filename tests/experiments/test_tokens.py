"""How many tokens each model may decode in a case."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridlab import catalog
from hybridlab.config.params import BesideParams
from hybridlab.experiments.plans import co_residency
from hybridlab.planner import Request as PlannedRequest
from hybridlab.strategies import Request
from tests.sessions import open_session


def test_by_default_each_model_says_all_that_it_has_to_say(tmp_path: Path) -> None:
    session = open_session(tmp_path, max_new_tokens="auto")
    case = session.case("setup")
    assert (case.max_new_tokens, case.asr_tokens) == (None, None)
    assert case.answer_tokens == catalog.ANSWER_TOKENS
    alone = session.case("setup", strategy="solo", variant="two-requests")
    assert alone.asr is None
    long_s = 5 * catalog.WINDOW_S
    assert case.predicted_request(long_s) == PlannedRequest(
        audio_s=long_s,
        new_tokens=catalog.ANSWER_TOKENS,
        asr_new_tokens=catalog.MOST_TRANSCRIPT_TOKENS_PER_WINDOW,
    )
    assert alone.predicted_request(long_s).new_tokens == catalog.transcript_tokens(long_s)


def test_random_weights_have_a_work_that_is_stated(tmp_path: Path) -> None:
    names = {"asr_model": "tiny", "asr_weights": "random"}
    session = open_session(tmp_path, max_new_tokens="auto", **names)
    assert session.case("setup").asr_tokens == catalog.FIXED_TOKENS_PER_WINDOW
    session = open_session(tmp_path / "few", asr_max_new_tokens=3, **names)
    assert session.case("setup").asr_tokens == 3
    assert session.case("setup").predicted_request().asr_new_tokens == 3


@pytest.mark.parametrize("size", ["tiny", "pocket-s"])
def test_sizes_with_words_are_not_cut_at_the_work_of_random_ones(size: str, tmp_path: Path) -> None:
    session = open_session(
        tmp_path, BesideParams, max_new_tokens="auto", asr_models=[size], sizes_new_tokens=2
    )
    case = co_residency._case(session, size)
    assert case.asr_tokens == (2 if size == "tiny" else None)
    assert case.answer_tokens == catalog.ANSWER_TOKENS  # the small Voxtral has words


def test_what_a_case_asks_its_models_for(tmp_path: Path) -> None:
    """Voxtral's limit is not Whisper's."""
    session = open_session(tmp_path, max_new_tokens=7, asr_max_new_tokens=9)
    case = session.case("setup")
    request = Request(
        id="a",
        samples=session.clips[0].samples(),
        question="?",
        max_new_tokens=case.max_new_tokens,
        asr_max_new_tokens=case.asr_tokens,
    )
    assert request.llm_options.max_new_tokens == request.answer_tokens == 7
    assert request.asr_options.max_new_tokens == 9
