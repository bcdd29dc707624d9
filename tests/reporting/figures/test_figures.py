"""Every figure is drawn from a made-up run, states a finding, and lets nothing overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from hybridlab.analysis.pick import DEFAULT_MARGIN_GB
from hybridlab.reporting import figures
from hybridlab.reporting.figures.heatmaps import draw_ratios
from hybridlab.reporting.figures.predictions import prediction_points
from hybridlab.reporting.figures.timeline import working_s
from hybridlab.reporting.findings import fastest_words, memory_finding
from hybridlab.reporting.rows import (
    RACE,
    arm_intervals,
    arms_of,
    merged_bands,
    race_standings,
    worst_per_label,
)
from hybridlab.units import GIB
from tests.analysis.test_verdict import Rows
from tests.reporting.figures.drawn import DRAWN, SEQUENTIAL, Tables, noise, of, words_of
from tests.synthetic import case, memory


def boxes(figure: Figure) -> list[tuple[str, Any]]:
    """Every visible text outside the axes' inside, with its place in pixels."""
    figure.draw_without_rendering()
    ticks = [
        label
        for ax in figure.axes
        for label in (*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label)
    ]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    beside = [
        text
        for ax in figure.axes
        for text in ax.texts
        if not ax.bbox.overlaps(text.get_window_extent())
    ]
    found = [*figure.texts, *ticks, *legends, *beside]
    if figure._suptitle is not None:  # type: ignore[attr-defined]
        found.append(figure._suptitle)  # type: ignore[attr-defined]
    seen = {id(text): text for text in found if text.get_visible() and text.get_text()}
    return [(text.get_text(), text.get_window_extent()) for text in seen.values()]


@pytest.mark.parametrize("name", DRAWN)
def test_texts_stay_inside_and_apart(name: str, drawn: Callable[[str], Figure]) -> None:
    figure = drawn(name)
    places = boxes(figure)
    assert len(places) > 4
    width, height = figure.bbox.width, figure.bbox.height
    outside = [
        text
        for text, box in places
        if box.x0 < -2 or box.y0 < -2 or box.x1 > width + 2 or box.y1 > height + 2
    ]
    # tick labels beyond the limits are kept by matplotlib but not drawn
    assert [text for text in outside if len(text) > 5] == []
    long = [(text, box) for text, box in places if len(text) > 5]
    for index, (text, box) in enumerate(long):
        for other, place in long[index + 1 :]:
            assert not box.padded(-1).overlaps(place.padded(-1)), f"{text!r} covers {other!r}"


@pytest.mark.parametrize("name", DRAWN)
def test_no_label_is_longer_than_its_axis_is_high(
    name: str, drawn: Callable[[str], Figure]
) -> None:
    figure = drawn(name)
    figure.draw_without_rendering()
    for ax in figure.axes:
        label = ax.yaxis.label
        assert label.get_window_extent().height <= 1.02 * ax.bbox.height, label.get_text()


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "request"])
def test_title_is_a_finding_and_the_caption_says_n(
    name: str, drawn: Callable[[str], Figure]
) -> None:
    figure = drawn(name)
    title = figure.get_suptitle()
    assert any(character.isdigit() for character in title)
    assert "nan" not in title
    words = words_of(figure)
    assert "n = " in words
    assert "interval" in words
    assert "weights: " in words
    assert "device " in words or "card " in words
    assert "memory limit" in words


def test_a_request_says_how_much_of_it_is_padding(drawn: Callable[[str], Figure]) -> None:
    """A clip is no measurement: it has neither weights nor a device."""
    title = drawn("request").get_suptitle().replace("\n", " ")
    assert title.startswith("a clip lasts 45.0 s: 2 windows of 30 s, 25.0 % of it padding")
    assert "n = 1 clip" in words_of(drawn("request"))
    assert "No sample" in words_of(figures.request(noise(0.0)))


def test_failed_cases_are_rows_of_text(tables: Tables) -> None:
    figure = figures.memory_bars(of(tables, "co_residency"))
    text = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "skipped: needs 16.4 GiB" in text.replace("\n", " ")


def test_bars_sum_to_the_peak() -> None:
    row = case("one", "co_residency", asr_model="base") | memory(0.29)
    figure = figures.memory_bars(pd.DataFrame([row]))
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    assert sum(widths) == pytest.approx(row["request_peak_bytes"] / GIB)
    assert all(width >= 0 for width in widths)


def test_of_several_capacities_each_has_a_name_of_its_own_and_a_far_one_no_line() -> None:
    """As where some cases of a run were measured inside a memory limit; the far one does not
    stretch the axis."""
    capacities = {"tiny": 140 * GIB, "base": 11 * GIB, "small": 11 * GIB + 1, "medium": 12 * GIB}
    rows = [
        case(size, "co_residency", asr_model=size) | memory(0.3) | {"capacity_bytes": capacity}
        for size, capacity in capacities.items()
    ]
    ax = figures.memory_bars(pd.DataFrame(rows)).axes[0]
    assert ax.get_xlim()[1] < 20
    named = [text for text in ax.texts if text.get_text().startswith("capacity")]
    assert [text.get_text() for text in named] == [
        "capacity 11.00 GiB",
        "capacity 12.00 GiB",
        "capacity 140.00 GiB: far outside this axis",
    ]
    assert len({text.xyann[1] for text in named}) == 3  # type: ignore[attr-defined]


def test_finding_names_the_whisper_to_pick(tables: Tables) -> None:
    assert memory_finding(worst_per_label(of(tables, "co_residency"))) == (
        "turbo fits with 2.45 GiB to spare, the lowest published WER of 5 that ran; 1 skipped"
    )
    row = case("one", "co_residency", status="skipped", reason="no memory")
    assert memory_finding(pd.DataFrame([row])) == "Not one of 1 case could be measured"


def test_a_measured_whisper_is_picked_by_the_rule_of_a_plan() -> None:
    """Accuracy before size; what leaves less than the margin comes after all that leaves it."""

    def said(*sizes: tuple[str, float]) -> str:
        rows = [
            case(size, "co_residency", asr_model=size) | memory(0.3) | {"margin_bytes": gb * 1e9}
            for size, gb in sizes
        ]
        return memory_finding(pd.DataFrame(rows)).split(" fits")[0]

    margin_gb = DEFAULT_MARGIN_GB
    assert said(("medium", 4), ("turbo", 4), ("large-v3", 2)) == "large-v3"
    assert said(("medium", 4), ("turbo", 4), ("large-v3", 0.9 * margin_gb)) == "turbo"
    assert said(("medium", 0.1), ("turbo", 0.2), ("large-v3", 0.1)) == "large-v3"
    assert said(("pocket-s", 4), ("pocket-m", 4)) == "pocket-m"
    assert said(("pocket-m", 4), ("tiny", 4)) == "tiny"


def test_repeated_cases_are_merged_to_the_worst() -> None:
    rows = [case(f"r{n}", "strategy_comparison") | memory(1.0 + n) for n in range(3)]
    rows.append(case("r4", "strategy_comparison", status="oom", reason="out of memory"))
    worst = worst_per_label(pd.DataFrame(rows))
    assert list(worst["case_id"]) == ["r2"]


def test_prediction_error_is_measured_over_predicted(tables: Tables) -> None:
    points = prediction_points(tables["ledgers"], of(tables, "co_residency"))
    voxtral = points[points["owner"] == "llm weights"]
    assert len(voxtral) == 1  # the same weights in every case are one point
    assert voxtral["error"].iloc[0] == pytest.approx(1 / 0.99 - 1, abs=1e-3)


@pytest.mark.parametrize(
    ("rounds", "noise", "said"),
    [
        (5, 0.0, "parallel/threads is fastest: 214 ms per request, 2 times as fast as sequential"),
        (5, 0.7, "has the lowest median, "),
        (4, 0.0, "too few rounds to tell"),
    ],
)
def test_fastest_is_claimed_only_where_rounds_part(rounds: int, noise: float, said: str) -> None:
    rows = Rows()
    rows.arm("sequential", "plain", "05", rounds=rounds)
    rows.arm("parallel", "threads", "05", factor=0.5, noise=noise, rounds=rounds)
    found = fastest_words(race_standings(rows.tables["cases"], rows.tables["trials"]))
    assert said in found
    assert ("a tie with" in found) == (noise > 0)


def test_first_requests_do_not_count(tables: Tables) -> None:
    rows = tables["trials"]
    first = rows["is_first_request"].eq(True)
    assert figures.latency(rows).axes[0].get_xlim()[1] < 3  # the first took more than 5 s
    assert rows.loc[first, "latency_s"].max() > 3
    assert "No request" in figures.latency(rows[first]).texts[0].get_text()
    swapping = arm_intervals(arms_of(rows))["swapping/reload-cached"]
    assert (swapping.n, swapping.high < 2.6) == (5, True)


def test_work_at_once_is_counted_in_one_arm_and_not_in_the_other(tables: Tables) -> None:
    both = {}
    for case_id in (SEQUENTIAL, "race-parallel-threads-05_parallel-r0"):
        spans = tables["spans"]
        own = spans[(spans["case_id"] == case_id) & spans["request_id"].notna()]
        both[case_id] = working_s(own)["both"]
    sequential, parallel = both.values()
    assert sequential == pytest.approx(0, abs=1e-9)
    assert parallel > 1


def test_neighbouring_bands_join() -> None:
    spans = pd.DataFrame(
        {"phase": ["decode"] * 3, "start_s": [0.0, 1.0, 3.0], "end_s": [1.0, 2.0, 4.0]}
    )
    assert merged_bands(spans, gap_s=0.1) == {"decode": [(0.0, 2.0), (3.0, 1.0)]}


def test_the_soak_tells_growth_from_none(tables: Tables) -> None:
    title = " ".join(DRAWN["soak"](tables).get_suptitle().split())
    assert title.startswith("Memory grows in 2 of 6 arms, at most by 89.8 MiB per 100 cycles")


def test_no_interval_is_a_power_of_ten(tables: Tables) -> None:
    slow = tables["trials"].assign(latency_s=60 * tables["trials"]["latency_s"])
    figure = figures.break_even(slow, tables["cases"])
    figure.draw_without_rendering()
    ticks = [label.get_text() for ax in figure.axes for label in ax.get_xticklabels()]
    assert max(float(text.replace(",", "")) for text in ticks) >= 100
    assert not [text for text in ticks if "e" in text]


@pytest.mark.parametrize("ratio", [0.1, 0.9, 1.0, 1.6, 9.0])
def test_words_are_read_on_every_cell(ratio: float) -> None:
    ax = Figure().add_subplot()
    draw_ratios(ax, pd.DataFrame([[ratio]]), pd.DataFrame([["x"]]), most=3.0)
    red, green, blue, share = ax.collections[0].get_facecolors()[0]  # type: ignore[attr-defined]
    on_white = [share * part + 1 - share for part in (red, green, blue)]
    linear = [((part + 0.055) / 1.055) ** 2.4 for part in on_white]
    luminance = sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    assert (luminance + 0.05) / 0.05 >= 4.5  # black words, by WCAG


def test_twelve_long_names_stay_apart() -> None:
    rows = [
        case(f"c{n}", RACE, variant=f"a-rather-long-variant-{n}") | memory(0.2 * n)
        for n in range(12)
    ]
    figure = figures.memory_bars(pd.DataFrame(rows))
    labels = [box for text, box in boxes(figure) if "variant" in text and "fits" not in text]
    assert len(labels) == 12
    assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[i + 1 :])
