"""The explorer's picture by known answers: what it says is the planner's word, and what is marked
as measured was."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hybridlab import catalog, planner
from hybridlab.units import format_bytes
from hybridlab.widgets.explorer import Choice, explorer_html, settings_of
from hybridlab.widgets.measured_points import Point, points, reference_points
from tests.synthetic import case, memory

T4 = Choice(
    card="t4",
    voxtral="mini-3b",
    llm_dtype="float16",
    whisper="medium",
    backend="transformers",
    dtype="float16",
    audio_s=30.0,
    beams=1,
    batch=1,
    way="sequential",
)
CPU = replace(
    T4, card="cpu", llm_dtype="bfloat16", whisper="large-v3", dtype="float32", way="sequential"
)


def test_the_explorer_needs_no_torch() -> None:
    code = (
        "import sys; from hybridlab.widgets.explorer import pair_explorer; pair_explorer(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_figures_are_the_planners() -> None:
    plan = planner.plan_pair(
        catalog.card("t4"),
        catalog.whisper("medium"),
        catalog.voxtral("mini-3b"),
        backend="transformers",
        dtype="float16",
    )
    shown = explorer_html(T4)
    assert "Of other combinations on NVIDIA T4: no case." in shown
    assert "✓ fits" in shown
    assert f"{format_bytes(plan.total_bytes)} (" in shown
    assert f"✓ fits by {format_bytes(plan.margin_bytes)}<" in shown
    assert f"{format_bytes(plan.idle_bytes)} predicted" in shown
    assert "every figure is <b>predicted</b>" in shown
    assert not re.search(r"iB measured<", shown)
    assert shown.count("1px dashed") == 3  # a bar for each moment


def longest_s(choice: Choice) -> int:
    found = re.search(r"longest audio: <b>(\d+) s", explorer_html(choice))
    assert found is not None
    return int(found.group(1))


def test_the_longest_audio_is_the_last_that_fits_and_a_margin_shortens_it() -> None:
    bare = replace(T4, margin_gb=0.0)
    seconds = longest_s(bare)
    assert "✗" not in explorer_html(replace(bare, audio_s=seconds))
    assert "✓ fits" not in explorer_html(replace(bare, audio_s=seconds + 30.0))
    assert longest_s(replace(T4, margin_gb=2.0)) < seconds


def test_the_kernel_that_keeps_scores_out_of_memory_lets_long_audio_fit() -> None:
    long = replace(T4, audio_s=480.0)
    assert re.search(r"✗ lacks \d", explorer_html(long))
    assert re.search(r"✓ fits by \d", explorer_html(replace(long, attention="expanded_kv")))


def test_less_than_the_margin_is_said_in_another_colour() -> None:
    colours = re.compile(r'class="verdict" style="[^"]*background:(#\w+)">([^<]*)<')
    (free,), (tight,) = (
        colours.findall(explorer_html(replace(T4, margin_gb=gb))) for gb in (0.5, 6.0)
    )
    assert free[0] != tight[0]
    assert tight[1].startswith("✓ fits by") and tight[1].endswith("less than the margin")


def test_what_cannot_be_resident_fits_in_turn() -> None:
    large = replace(T4, whisper="large-v3", backend="openai-whisper", dtype="float32")
    assert "✗ lacks" in explorer_html(large)
    assert "longest audio: <b>none" in explorer_html(large)
    assert "✓ fits" in explorer_html(replace(large, way="swapping both"))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (replace(T4, llm_dtype="bfloat16"), "NVIDIA T4 does not compute in bfloat16"),
        (replace(T4, dtype="int8"), "transformers cannot keep &#x27;int8&#x27; weights"),
        (replace(CPU, llm_dtype="int4"), "needs a CUDA device"),
    ],
)
def test_what_is_impossible_is_one_line(choice: Choice, words: str) -> None:
    shown = explorer_html(choice)
    assert words in shown
    assert "memory by owner" not in shown
    assert "\n" not in shown


def test_a_published_case_is_marked_with_its_error() -> None:
    published = reference_points()
    shown = explorer_html(CPU, published)
    cases = pd.read_parquet(
        Path(__file__).resolve().parents[2] / "outputs/reference/full-cpu/cases.parquet"
    )
    own = cases[cases["asr_model"] == "large-v3"].iloc[0]
    assert f"peak {format_bytes(own['request_peak_bytes'])}" in shown
    assert f"{format_bytes(own['idle_bytes'])} measured" in shown
    error = re.search(r"error <b>([+−]\d+\.\d) %", shown)
    assert error is not None
    assert abs(float(error.group(1).replace("−", "-"))) < 3


def test_a_published_run_of_a_simulated_card_is_found_and_marked_so() -> None:
    """Its folder holds no trials: the audio of its sizes is one window by what they are."""
    published = reference_points()
    shown = explorer_html(T4, published)
    (own,) = (point for point in published if T4.matches(point))
    assert (own.run, own.evidence, own.windows) == ("run t4-simulated", "simulated", 1)
    assert "<b>Simulated</b> (run t4-simulated, the highest of 1 case, 1 window of 30 s)" in shown
    assert shown.count("iB simulated<") == 3 and "measured<" not in shown
    elsewhere = explorer_html(replace(T4, dtype="float32"), published)
    of_t4 = sum(point.card == "t4" for point in published)
    assert of_t4 and f"Of other combinations on NVIDIA T4: {of_t4} cases simulated." in elsewhere


def test_settings_of_a_point_show_it() -> None:
    for point in reference_points():
        assert replace(T4, **settings_of(point)).matches(point)


@pytest.mark.parametrize(
    "other",
    [
        {"card": "h200"},
        {"voxtral": "pocket"},
        {"llm_dtype": "float32"},
        {"whisper": "pocket-m"},
        {"backend": "openai-whisper"},
        {"dtype": "bfloat16"},
        {"way": "parallel, one process"},
        {"audio_s": 60.0},
        {"batch": 2},
        {"beams": 2},
        {"attention": "expanded_kv"},
    ],
)
def test_another_combination_is_not_called_measured(other: dict[str, object]) -> None:
    published = reference_points()
    assert any(CPU.matches(point) for point in published)
    assert not any(replace(CPU, **other).matches(point) for point in published)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------- points


NO_TRIALS = pd.DataFrame(columns=["case_id", "audio_s"])


def found_of(*rows: dict[str, object], audio_s: float = 20.0) -> list[Point]:
    cases = pd.DataFrame(rows)
    trials = pd.DataFrame({"case_id": cases["case_id"], "audio_s": audio_s})
    return points(cases, trials, run="this run", card="")


def test_points_are_plain_cases_that_were_measured() -> None:
    fine = case("a", "co_residency", asr_model="base") | memory(0.29)
    assert [point.whisper for point in found_of({**fine, "device": "cpu"})] == ["base"]
    for change in (
        {"status": "oom"},
        {"experiment": "memory_limits"},
        {"variant": "batched"},
        {"memory_limited": True},
        {"attention": "math"},
    ):
        assert found_of({**fine, "device": "cpu", **change}) == []


def test_a_point_sums_to_its_peak_and_a_gpu_without_a_name_is_no_card() -> None:
    row = case("a", "co_residency", asr_model="base") | memory(0.29)
    (point,) = found_of({**row, "device": "cuda:0"})
    assert sum(point.stacks["request_peak"].values()) == pytest.approx(row["request_peak_bytes"])
    assert point.card == ""
    assert not any(replace(T4, card=card).matches(point) for card in catalog.CARDS)


def test_without_trials_a_case_counts_where_its_request_is_of_one_window() -> None:
    rows = [
        case("a", "co_residency", asr_model="base") | memory(0.29) | {"device": "simulated:l4"},
        case("b", "strategy_comparison", asr_model="base") | memory(0.29) | {"device": "cpu"},
    ]
    (point,) = points(pd.DataFrame(rows), NO_TRIALS, run="this run", card="")
    assert (point.card, point.windows) == ("l4", 1)


def test_a_batch_counts_the_audio_of_one_row() -> None:
    row = case("a", "request_scaling", strategy="solo", variant="two-requests") | memory(0.0)
    limit = {"scaling_kind": "batch", "scaling_value": 4.0}
    (point,) = found_of({**row, **limit, "device": "cpu"}, audio_s=120.0)
    assert (point.batch, point.audio_s, point.windows) == (4, 30.0, 1)
