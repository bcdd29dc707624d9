"""Memory by owner as HTML: bars under each other against a capacity, and a legend.

Made in a millisecond where a matplotlib figure takes half a second. Colours and hatches are those
of the figures; every text takes its colour from the page around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from hybridlab.reporting.memory_stack import Segment, Stack, is_far, legend, segments
from hybridlab.reporting.palette import css_background
from hybridlab.units import format_bytes


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row: bytes by owner, words beside it, and whether its outline is full. `others_bytes` is
    what other processes hold of the device."""

    label: str
    parts: Stack
    note: str
    measured: bool = True
    others_bytes: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def bars_html(bars: Sequence[Bar], *, capacity_bytes: float) -> str:
    """The bars against a dashed line at the capacity, and what each colour is; of a single bar with
    its bytes. A predicted bar has a dashed outline."""
    if not bars:
        return ""
    longest = max(bar.total + bar.others_bytes for bar in bars) or 1.0
    far = is_far(capacity_bytes, longest)
    reach = longest if far else 1.02 * max(longest, capacity_bytes)
    capacity = f"capacity {format_bytes(capacity_bytes)}"
    mark = (
        f'<span class="capacity" style="position:absolute;top:-2px;bottom:-2px;border-left:'
        f'2px dashed;left:{capacity_bytes / reach:.2%}"></span>'
    )
    rows = "".join(_row(bar, reach, "" if far else mark) for bar in bars)
    spoken = "; ".join(f"{bar.label} {format_bytes(bar.total)}" for bar in bars)
    entries = [_legend_entry(part, bars) for part in legend(bar.parts for bar in bars)]
    entries.append(f"┆ {capacity}{': far outside this axis' if far else ''}")
    if others := max(bar.others_bytes for bar in bars):
        entries.append(f"▯ other processes {format_bytes(others)}")
    shown = (f'<span style="margin-right:1em;white-space:nowrap">{e}</span>' for e in entries)
    return (
        f'<div role="img" aria-label="memory by owner: {escape(spoken)}; {capacity}" '
        f'style="max-width:810px">{rows}</div><div style="line-height:1.6">{"".join(shown)}</div>'
    )


def _row(bar: Bar, reach: float, mark: str) -> str:
    parts = "".join(
        f'<span title="{part.label}: {format_bytes(part.size)}" data-owner="{part.owner}" '
        f'style="flex:{part.size:.0f};background:{css_background(part.colour, part.hatch)}"></span>'
        for part in segments(bar.parts)
    )
    edge = "border:1px {};box-sizing:border-box;height:20px;display:flex;width:{:.2%}"
    drawn = f'<span style="{edge.format("solid" if bar.measured else "dashed", bar.total / reach)}'
    drawn += f'">{parts}</span>'
    if bar.others_bytes:
        width = edge.format("solid #8888", bar.others_bytes / reach)
        drawn += f'<span style="{width}"></span>'
    return (
        '<div style="display:flex;align-items:center;gap:8px;margin:6px 0">'
        f'<span style="flex:0 0 22%;text-align:right">{escape(bar.label)}</span>'
        f'<span style="flex:1;position:relative;display:flex">{drawn}{mark}</span>'
        f'<span style="flex:0 0 20%">{escape(bar.note)}</span></div>'
    )


def _legend_entry(part: Segment, bars: Sequence[Bar]) -> str:
    n_bytes = f" {format_bytes(bars[0].parts.get(part.owner, 0))}" if len(bars) == 1 else ""
    background = css_background(part.colour, part.hatch)
    swatch = f"display:inline-block;width:14px;height:12px;background:{background}"
    return f'<span style="{swatch}"></span> {part.label}{n_bytes}'
