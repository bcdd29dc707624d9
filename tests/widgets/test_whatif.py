"""What-if on a race whose answers are known by construction."""

from __future__ import annotations

import pandas as pd
import pytest

from hybridlab.analysis.arms import ArmStats
from hybridlab.analysis.recommendation import Requirements, recommend
from hybridlab.units import GIB
from hybridlab.widgets.whatif import _slider, comparable_arms, what_if, whatif_html
from tests.analysis.test_verdict import Rows

Tables = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Tables:
    rows = Rows()
    rows.arm("sequential", "plain", "04", factor=1.0, peak=8 * GIB)
    rows.arm("parallel", "threads", "04", factor=0.7, peak=11 * GIB)
    rows.arm("swapping", "single-buffer", "04", factor=1.6, peak=6 * GIB)
    rows.arm("sequential", "batched", "04", factor=3.0, peak=9 * GIB, throughput_rps=4.0)
    return rows.tables["cases"], rows.tables["trials"]


@pytest.fixture(scope="module")
def arms(tables: Tables) -> list[ArmStats]:
    return comparable_arms(*tables)


def picks(shown: str) -> list[str]:
    """The sign of each arm, fastest first."""
    return [sign for sign in shown if sign in "●○✗"][3:]  # the rules name each once


def test_without_wishes_it_is_the_verdicts_word(arms: list[ArmStats], tables: Tables) -> None:
    shown = whatif_html(arms, "the pair", Requirements())
    pick = recommend(*tables)
    assert pick is not None
    assert f'<b class="pick">{pick.strategy}/{pick.variant}</b>' in shown
    names = ["parallel/threads", "sequential/plain", "swapping/single-buffer", "sequential/batched"]
    assert [arm.arm for arm in arms] == names
    assert picks(shown) == ["●", "●", "●", "○"]
    assert "nan" not in shown


def test_wishes_change_the_pick(arms: list[ArmStats]) -> None:
    small = whatif_html(arms, "the pair", Requirements(min_margin_bytes=6 * GIB))
    assert '<b class="pick">sequential/plain</b>' in small
    assert picks(small) == ["✗", "●", "●", "✗"]
    assert small.count("margin below 6.00 GiB") == 2
    none = whatif_html(arms, "the pair", Requirements(max_p95_s=0.01))
    assert "No way of sharing that was measured keeps all that" in none
    assert picks(none) == ["✗"] * 4


def test_sliders_ask_for_nothing_at_first_and_move_the_view(tables: Tables) -> None:
    *sliders, view = what_if(*tables).children
    assert "parallel/threads</b>" in view.value
    sliders[1].value = 6.0
    assert "sequential/plain</b>" in view.value


@pytest.mark.parametrize("most", [0.0042, 0.582, 1.0, 23.54, 100.0])
def test_sliders_stop_at_round_values_and_reach_their_end(most: float) -> None:
    slider = _slider("", most, most)
    assert slider.value == slider.max >= most
    assert slider.max < 1.02 * most
    assert float(format(slider.step, slider.readout_format)) == pytest.approx(slider.step)
    assert str(slider.step).strip("0.")[:1] in ("1", "2", "5")
    assert slider.max / slider.step == pytest.approx(round(slider.max / slider.step))


def test_eight_gib_can_be_asked_for() -> None:
    slider = _slider("min margin, GiB", 23.54, 0.0)
    assert 8 / slider.step == pytest.approx(round(8 / slider.step))


def test_without_a_race_it_says_so() -> None:
    assert "run the notebooks 04 to 06" in whatif_html([], "", Requirements())


def test_a_slider_without_a_figure_to_choose_among_is_off_and_asks_for_nothing() -> None:
    rows = Rows()
    rows.arm("sequential", "plain", "04", rounds=1)  # too few requests for a p95, no references
    p95, margin, wer, view = what_if(rows.tables["cases"], rows.tables["trials"]).children
    assert (p95.disabled, margin.disabled, wer.disabled) == (True, False, True)
    assert "sequential/plain</b>" in view.value
    margin.value = margin.max
    assert "No way of sharing that was measured keeps all that" in view.value
