"""Bars as inline SVG, drawn in a millisecond where a matplotlib figure takes half a second. Colours
and hatches are those of the figures; every text takes its colour from the page around it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from hybridlab.reporting.figures.marks import OWNER_WORDS
from hybridlab.reporting.figures.palette import OWNER_COLOURS, OWNER_HATCHES
from hybridlab.units import format_bytes

_LABEL, _BAR, _NOTE, _ROW, _TOP = 190, 480, 170, 30, 24  # px
#: Far beyond the bars the capacity is written instead of drawn, as in the figures.
_FAR = 6.0
_STROKES = {
    "//": "M0 8L8 0",
    "\\\\": "M0 0L8 8",
    "xx": "M0 8L8 0M0 0L8 8",
    "--": "M0 4L8 4",
    "..": "M3 4h2",
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row: bytes by owner (a key of `OWNER_COLOURS`), and whether they were measured."""

    label: str
    parts: Mapping[str, float]
    measured: bool

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def stacked_bars(bars: Sequence[Bar], *, capacity_bytes: float) -> str:
    """The bars under each other against a dashed line at the capacity, and a legend."""
    longest = max([bar.total for bar in bars] or [1.0])
    far = capacity_bytes > _FAR * longest
    per_byte = _BAR / (longest if far else max(longest, capacity_bytes) * 1.02)
    key = f"h{zlib.crc32(repr(bars).encode()):x}"  # patterns are named in the whole page
    bottom = _TOP + _ROW * len(bars)
    rows = [_row(bar, _TOP + _ROW * i, per_byte, key) for i, bar in enumerate(bars)]
    seen = [owner for owner in OWNER_WORDS if any(bar.parts.get(owner, 0) > 0 for bar in bars)]
    spoken = "; ".join(f"{bar.label} {format_bytes(bar.total)}" for bar in bars)
    return (
        f'<svg viewBox="0 0 {_LABEL + _BAR + _NOTE} {bottom + 30}" role="img" '
        f'style="width:100%;max-width:{_LABEL + _BAR + _NOTE}px;height:auto" '
        f'font-family="sans-serif" font-size="12" fill="currentColor" aria-label="'
        f'{escape(spoken)}; capacity {format_bytes(capacity_bytes)}">'
        f"<defs>{''.join(_pattern(owner, key) for owner in seen)}</defs>{''.join(rows)}"
        f"{_capacity(capacity_bytes, per_byte, bottom, far=far)}{_legend(seen, bottom, key)}</svg>"
    )


def _pattern(owner: str, key: str) -> str:
    stroke = _STROKES.get(OWNER_HATCHES[owner], "")
    return (
        f'<pattern id="{key}-{owner}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" fill="{OWNER_COLOURS[owner]}"/>'
        f'<path d="{stroke}" stroke="white" stroke-width="1.2"/></pattern>'
    )


def _row(bar: Bar, top: float, per_byte: float, key: str) -> str:
    """A measured bar has a full outline, a predicted one a dashed one."""
    left, parts = float(_LABEL), []
    for owner, n_bytes in bar.parts.items():
        width = n_bytes * per_byte
        parts.append(
            f'<rect x="{left:.1f}" y="{top + 4}" width="{width:.1f}" height="{_ROW - 10}" '
            f'fill="url(#{key}-{owner})"><title>{OWNER_WORDS[owner]}: {format_bytes(n_bytes)}'
            "</title></rect>"
        )
        left += width
    dash = "" if bar.measured else ' stroke-dasharray="3 2"'
    middle = top + _ROW / 2 + 3
    return (
        f'<text x="{_LABEL - 8}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>'
        f'{"".join(parts)}<rect x="{_LABEL}" y="{top + 4}" width="{left - _LABEL:.1f}" '
        f'height="{_ROW - 10}" fill="none" stroke="currentColor"{dash}/>'
        f'<text x="{_LABEL + _BAR + 8}" y="{middle}">{format_bytes(bar.total)} '
        f"{'measured' if bar.measured else 'predicted'}</text>"
    )


def _capacity(capacity_bytes: float, per_byte: float, bottom: float, *, far: bool) -> str:
    words = f"capacity {format_bytes(capacity_bytes)}"
    if far:
        return (
            f'<text x="{_LABEL + _BAR}" y="14" text-anchor="end">{words}: far outside this axis'
            "</text>"
        )
    x = _LABEL + capacity_bytes * per_byte
    anchor = "end" if x > _LABEL + _BAR / 2 else "start"
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="18" y2="{bottom}" stroke="currentColor" '
        f'stroke-width="2" stroke-dasharray="6 4"/>'
        f'<text x="{x:.1f}" y="14" text-anchor="{anchor}">{words}</text>'
    )


def _legend(owners: Sequence[str], bottom: float, key: str) -> str:
    found, left = [], float(_LABEL)
    for owner in owners:
        found.append(
            f'<rect x="{left}" y="{bottom + 10}" width="16" height="12" '
            f'fill="url(#{key}-{owner})"/>'
            f'<text x="{left + 21}" y="{bottom + 20}">{OWNER_WORDS[owner]}</text>'
        )
        left += 40 + 6.4 * len(OWNER_WORDS[owner])
    return "".join(found)
