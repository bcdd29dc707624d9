"""Figure of what a better text costs: word error rate against the memory of each model alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.palette import OWNER_COLOURS, TENANT_MARKERS
from hybridlab.reporting.tables import RULE, Quality, qualities
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GIB, MIB, format_number

#: Beyond this ratio of largest to smallest, a linear axis would push the small ones together.
_LOG_RATIO = 8.0


@theme.styled(
    trials=("case_id", "reference", "transcript", "audio_s", "is_first_request"),
    cases=(
        *("case_id", "experiment", "status", "variant", "llm_model", "asr_model"),
        *("process_baseline_bytes", "request_peak_bytes"),
        *(f"{tenant}_{what}" for tenant in TENANT_MARKERS for what in ("weights", "weights_bytes")),
    ),
)
def quality_memory(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """A mark per model alone on the reader's clips: the most bytes that it took, its word error
    rate with the interval, and beside it how fast it transcribes."""
    found = [one for one in qualities(trials, cases) if one.peak_bytes > 0]
    if not found:
        return theme.nothing_to_show(
            "No model's text was held against a reference (no quality_models, weights without "
            "text, or clips without a reference)."
        )
    figure, ax = theme.new_axes(4.4)
    unit, name = (GIB, "GiB") if max(one.peak_bytes for one in found) > GIB else (MIB, "MiB")
    for one in found:
        colour, at = OWNER_COLOURS[one.tenant], one.peak_bytes / unit
        ax.vlines(at, one.wer.low * 100, one.wer.high * 100, color=colour, linewidth=2.2)
        ax.plot(at, one.wer.value * 100, TENANT_MARKERS[one.tenant], color=colour, ms=11)
    _limits(ax, [one.peak_bytes / unit for one in found])
    ax.set_xlabel(f"memory at the peak, the empty process left out ({name})")
    ax.set_ylabel("word error rate (%)")
    theme.finish(figure, quality_finding(found), _caption(found, cases))
    places = [(one.peak_bytes / unit, one.wer.value * 100) for one in found]
    elements.label_points(ax, places, [_words(one) for one in found])
    return figure


def _limits(ax: Axes, sizes: list[float]) -> None:
    """Room to the right for a label, above for those moved up, below for a mark at zero."""
    smallest, largest = min(sizes), max(sizes)
    if largest > _LOG_RATIO * smallest:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlim(smallest / 1.4, largest * (largest / smallest) ** 0.5)
    else:
        ax.set_xlim(0, 1.6 * largest)
    top = max(ax.get_ylim()[1], 1.0)
    ax.set_ylim(-0.08 * top, 1.15 * top)


def _caption(found: list[Quality], cases: pd.DataFrame) -> str:
    rtfx = "RTFx: seconds of audio per second of work, median without the first clip"
    if not any(one.rtfx.n for one in found):
        rtfx = f"no RTFx: {'other processes were at work' if has_clock(cases) else NO_TIMES}"
    return caption(
        cases[cases["experiment"] == "quality"],
        cases,
        n=f"{labels.counted(max(one.clips for one in found), 'clip')}, each model alone",
        interval=f"bar: {BOOTSTRAP} over clips",
        notes=(rtfx, RULE),
        sampled=True,
    )


def _words(one: Quality) -> str:
    """'Whisper pocket-m: best, RTFx 12.3'; no RTFx where others disturbed it."""
    rtfx = f", RTFx {format_number(one.rtfx.value)}" if one.rtfx.n else ""
    return f"{one.name}: {one.word}{rtfx}"


def quality_finding(found: list[Quality]) -> str:
    """Whose text is best, and what the model with the least memory gives up for it."""
    best, smallest = found[0], min(found, key=lambda one: one.peak_bytes)
    share = labels.percent(best.wer.value)
    wrong = f"{share} of the" if best.wer.value else f"none of {best.words}"
    words = f"{best.name} gets {wrong} words wrong"
    if smallest is best:
        return words + (" and takes the least memory, too" if len(found) > 1 else "")
    memory = labels.percent(smallest.peak_bytes / best.peak_bytes)
    clear = ", which is not clearly more" if smallest.word == "best" else ""
    rate = labels.percent(smallest.wer.value)
    return f"{words}; {smallest.name}, with {memory} of its memory, gets {rate}{clear}"
