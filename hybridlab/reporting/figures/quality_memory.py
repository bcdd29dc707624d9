"""Figure of what a better text costs: word error rate against the memory of each tenant alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from hybridlab.reporting.figures import style, wording
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.figures.palette import MUTED, OWNER_COLOURS, TENANT_MARKERS
from hybridlab.reporting.tables import RULE, Quality, qualities
from hybridlab.results.records import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GIB, MIB, format_number

#: Beyond this ratio of largest to smallest, a linear axis would push the small ones together.
_LOG_RATIO = 8.0
#: Size of a mark and of the words beside it.
_POINTS = 11
#: How far words may move from their mark, in points, the nearest place first.
_UPS = [sign * step for step in range(0, 240, 3) for sign in (1, -1)]


@style.styled(
    trials=("case_id", "reference", "transcript", "audio_s", "first"),
    cases=(
        *("case_id", "experiment", "status", "variant", "voxtral", "whisper_size"),
        *("base_bytes", "request_peak_bytes"),
        *(f"{tenant}_{what}" for tenant in TENANT_MARKERS for what in ("weights", "bytes")),
    ),
)
def quality_memory(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """A mark per tenant alone on the reader's clips: the most bytes that it took, its word error
    rate with the interval, and beside it how fast it transcribes."""
    found = [one for one in qualities(trials, cases) if one.peak_bytes]
    if not found:
        return style.nothing_to_show(
            "No tenant's text was held against a reference (no quality_sizes, weights without "
            "text, or clips without a reference)."
        )
    figure, ax = style.new_axes(4.4)
    unit, name = (GIB, "GiB") if max(_bytes(one) for one in found) > GIB else (MIB, "MiB")
    for one in found:
        colour, at = OWNER_COLOURS[one.tenant], _bytes(one) / unit
        ax.vlines(at, one.wer.low * 100, one.wer.high * 100, color=colour, linewidth=2.2)
        ax.plot(at, one.wer.value * 100, TENANT_MARKERS[one.tenant], color=colour, ms=_POINTS)
    _limits(ax, [_bytes(one) / unit for one in found])
    ax.set_xlabel(f"memory at the peak, the empty process left out ({name})")
    ax.set_ylabel("word error rate (%)")
    style.finish(figure, quality_finding(found), _caption(found, cases))
    _label(figure, ax, found, unit)
    return figure


def _bytes(one: Quality) -> float:
    return one.peak_bytes or 0.0


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
    timed = any(one.rtfx.n for one in found)
    speed = "RTFx: seconds of audio per second of work, median without the first clip"
    return caption(
        cases[cases["experiment"] == "quality"],
        cases,
        n=f"{wording.counted(max(one.clips for one in found), 'clip')}, each tenant alone",
        interval=f"bar: {BOOTSTRAP} over clips",
        notes=(speed if timed else f"no RTFx: {_untimed_words(cases)}", RULE),
        sampled=True,
    )


def _untimed_words(cases: pd.DataFrame) -> str:
    return "other processes were at work" if has_clock(cases) else NO_TIMES


def _label(figure: Figure, ax: Axes, found: list[Quality], unit: float) -> None:
    """Words to the right of each mark, moved up or down until they cover no mark and no words; a
    line leads from a mark to words that had to move."""
    figure.draw_without_rendering()  # places are known only after the layout
    half = 0.6 * _POINTS * figure.dpi / 72
    spots = [(_bytes(one) / unit, one.wer.value * 100) for one in found]
    marks = [ax.transData.transform(spot) for spot in spots]
    taken = [Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half) for x, y in marks]
    for one, spot in zip(found, spots, strict=True):
        text = ax.annotate(
            _words(one),
            spot,
            xytext=(_POINTS, 0),
            textcoords="offset points",
            va="center",
            fontsize=_POINTS,
            bbox={"boxstyle": "square,pad=0.05", "fc": "white", "ec": "none", "alpha": 0.8},
        )
        level = text.get_window_extent()
        for up in _UPS:
            text.set_position((_POINTS, up))
            box = level.translated(0, up * figure.dpi / 72)
            inside = ax.bbox.y0 < box.y0 and box.y1 < ax.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        else:  # no place is left: better no words than unreadable ones
            text.remove()
            continue
        taken.append(box)
        if abs(text.get_position()[1]) > _POINTS:
            ax.annotate(
                "",
                spot,
                xytext=text.get_position(),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.8, "shrinkA": 0},
            )


def _words(one: Quality) -> str:
    """'Whisper pocket-m: best, RTFx 12.3'; no speed where others disturbed it."""
    speed = f", RTFx {format_number(one.rtfx.value)}" if one.rtfx.n else ""
    return f"{one.name}: {one.word}{speed}"


def quality_finding(found: list[Quality]) -> str:
    """Whose text is best, and what the tenant with the least memory gives up for it."""
    best, smallest = found[0], min(found, key=_bytes)
    share = wording.percent(best.wer.value)
    wrong = f"{share} of the" if best.wer.value else f"none of {best.words}"
    words = f"{best.name} gets {wrong} words wrong"
    if smallest is best:
        return words + (" and takes the least memory, too" if len(found) > 1 else "")
    rate = wording.percent(smallest.wer.value)
    share = wording.percent(_bytes(smallest) / _bytes(best))
    clear = ", which is not clearly more" if smallest.word == "best" else ""
    return f"{words}; {smallest.name}, with {share} of its memory, gets {rate}{clear}"
