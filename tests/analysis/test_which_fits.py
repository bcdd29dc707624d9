"""Which Whisper fits: rows of a run where a released Voxtral ran, predictions for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hybridlab import catalog
from hybridlab.analysis.pick import DEFAULT_MARGIN_BYTES, pick
from hybridlab.analysis.which_fits import WhichFits, which_fits
from hybridlab.reporting import fit_words
from hybridlab.results.reader import run_table
from hybridlab.units import GIB
from tests.synthetic import case, memory

NONE = pd.DataFrame({"experiment": []})


def beside(size: str, gib: float, **values: Any) -> dict[str, Any]:
    own = {"device": "simulated:t4", "evidence": "simulated", "llm_dtype": "float16"}
    return case(size, "co_residency", asr_model=size) | memory(gib) | own | values


@pytest.fixture
def published(project: Path) -> WhichFits:
    return which_fits(run_table(project / "outputs" / "reference" / "t4-simulated", "cases"))


@pytest.mark.parametrize("card", catalog.CARDS)
def test_without_cases_it_is_the_pick_of_the_plan(card: str) -> None:
    found, best = which_fits(NONE, catalog.card(card)), pick(catalog.card(card))
    assert best is not None and found.pick is not None
    assert found.pick.plan == best
    assert found.evidence == "predicted" and found.n_run == 0
    assert [row.asr_model for row in found.rows].count("large-v3") == 2


def test_what_was_simulated_stands_beside_what_is_predicted(published: WhichFits) -> None:
    assert (published.card, published.evidence) == (catalog.card("t4"), "simulated")
    kinds = {(row.asr_model, row.asr_backend): row.evidence for row in published.rows}
    assert set(kinds) == {
        (size, backend)
        for size in catalog.WHISPER_SIZES
        for backend in ("transformers", "openai-whisper")
    }
    assert all((kind == "simulated") == (key[1] == "transformers") for key, kind in kinds.items())
    best = published.pick
    assert best is not None and best.name == "large-v3 (transformers, float16)"
    # what a bar leaves of the card is the margin that the case measured
    spare = published.capacity_bytes - max(best.moments.values())
    assert spare == pytest.approx(best.margin_bytes) == pytest.approx(2.43 * GIB, rel=0.01)


def test_a_longer_audio_than_the_longest_does_not_leave_the_margin(published: WhichFits) -> None:
    for row in published.rows:
        assert row.longest_audio_s is not None
        if row.fits and row.evidence == "predicted":
            assert row.longest_audio_s >= catalog.WINDOW_S
            assert row.audio_is_limited


def test_a_reading_decides_against_its_prediction() -> None:
    """A pair that was predicted to fit and ran out of memory does not."""
    rows = [
        beside("large-v3", 2.9, status="oom", reason="in phase request"),
        beside("medium", 1.4),
        beside("turbo", 1.5, margin_bytes=0.9 * DEFAULT_MARGIN_BYTES),
    ]
    found = which_fits(pd.DataFrame(rows))
    lost = {row.name: row for row in found.rows}["large-v3 (transformers, float16)"]
    assert lost.lost == "out of memory" and not lost.fits
    assert found.pick is not None and found.pick.asr_model == "turbo"
    assert found.pick.asr_backend == "openai-whisper"  # predicted, and nobody has run it
    assert not {row.name: row for row in found.rows}["turbo (transformers, float16)"].fits


def search(**values: Any) -> dict[str, Any]:
    own = {"experiment": "memory_limits", "limit_kind": "audio_s", "limit_found": 210.0}
    return beside("large-v3", 2.9) | own | {"limit_hit": True, "case_id": "limit"} | values


def longest(**values: Any) -> tuple[str, str, str]:
    """The card of the longest request, beside a search with these values."""
    cases = pd.DataFrame([beside("large-v3", 2.0), search(**values)])
    (card,) = [one for one in fit_words.three_numbers(which_fits(cases)) if one[0][0] == "L"]
    return card


def test_the_longest_audio_is_the_searched_one_where_there_was_a_search() -> None:
    assert longest()[1:] == (
        "210 s of audio",
        "found by search on the simulated card: a longer one failed",
    )
    assert longest(limit_hit=False)[1:] == (
        "at least 210 s of audio",
        "found by search on the simulated card: no longer one was tried",
    )


@pytest.mark.parametrize(
    "values",
    [
        {"capacity_bytes": 1 * GIB},  # inside a memory limit of its own
        {"device": "cuda:0"},
        {"llm_model": "pocket"},
        {"limit_kind": "batch"},
        {"status": "crashed"},
        {"limit_found": None},
    ],
)
def test_a_search_of_something_else_does_not_count(values: dict[str, Any]) -> None:
    _, figure, words = longest(**values)
    assert (figure, words) == ("240 s of audio", f"predicted, with {fit_words.MARGIN}")


def test_a_search_with_another_whisper_is_told_beside_the_prediction() -> None:
    _, figure, words = longest(asr_model="small")
    assert figure == "240 s of audio"
    assert words.endswith("; small (transformers, float16) by search: 210 s of audio")


def test_a_toy_decides_nothing() -> None:
    toy = which_fits(pd.DataFrame([beside("base", 0.2, llm_model="pocket")]))
    assert toy.n_run == 0 and toy.evidence == "predicted"


@pytest.mark.parametrize(
    ("reason", "fits"),
    [("stopped by the reader", True), ("needs 12 GiB and 9 GiB may be used", False)],
)
def test_what_could_not_run_here_does_not_fit_whatever_is_predicted(
    reason: str, fits: bool
) -> None:
    """What the reader stopped keeps its prediction."""
    gone = beside("large-v3", 0.2, status="skipped", reason=reason)
    gone |= {"load_peak_bytes": None, "request_peak_bytes": None}
    found = which_fits(pd.DataFrame([gone, beside("tiny", 0.1)]))
    assert found.reasons == {"large-v3 transformers float16": reason}
    assert found.n_run == 1
    row = {row.name: row for row in found.rows}["large-v3 (transformers, float16)"]
    assert (row.fits, row.evidence) == (fits, "predicted")
    assert (found.pick == row) == fits


def test_a_gpu_that_the_catalog_does_not_know_has_no_predictions() -> None:
    own = {"device": "cuda:0", "evidence": "measured"}
    gone = beside("large-v3", 2.9, status="skipped", reason="no room", **own)
    gone |= {"load_peak_bytes": None, "request_peak_bytes": None}
    rows = [gone, beside("base", 0.2, **own), beside("tiny", 0.1, **own)]
    found = which_fits(pd.DataFrame(rows))
    assert found.card is None
    assert [row.asr_model for row in found.rows] == ["tiny", "base", "large-v3"]
    assert (found.rows[-1].lost, found.rows[-1].fits) == ("skipped", False)
    assert {row.longest_audio_s for row in found.rows} == {None}
    assert found.pick is not None and found.pick.asr_model == "base"


def test_what_others_hold_of_a_cpu_counts_for_what_was_not_run(project: Path) -> None:
    found = which_fits(run_table(project / "outputs" / "reference" / "full-cpu", "cases"))
    assert found.card is catalog.HOST and found.evidence == "measured"
    predicted = [row for row in found.rows if row.evidence == "predicted"]
    most = max(row.others_bytes for row in found.rows if row.evidence == "measured")
    assert predicted and all(row.others_bytes == most > GIB for row in predicted)
    for row in predicted:
        spare = found.capacity_bytes - max(row.moments.values())
        assert spare == pytest.approx(row.margin_bytes, abs=4)


def test_a_memory_limit_is_said_where_the_card_is_named() -> None:
    own = {"device": "cpu", "evidence": "measured", "memory_limited": True}
    found = which_fits(pd.DataFrame([beside("base", 0.2, **own)]))
    assert found.memory_limited
    assert fit_words.where(found) == "On this CPU, limited to 15.60 GiB,"
