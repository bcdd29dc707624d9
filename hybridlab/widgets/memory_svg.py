"""Memory by owner as SVG: bars against a capacity, and the last minute as a curve.

Drawn in a millisecond where a matplotlib figure takes half a second. Colours and hatches are those
of the figures; every text takes its colour from the page around it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from hybridlab.reporting.memory_stack import Segment, Stack, is_far, legend, segments
from hybridlab.units import format_bytes

_LABEL, _BAR, _NOTE, _ROW, _TOP = 150, 500, 160, 30, 24  # px
_AREA = 130  # px
#: The last so many seconds are drawn, and at least this many.
WINDOW_S, LEAST_S = 60.0, 10.0
#: Each hatch of the figures as a path in a tile of 8 px.
_STROKES = {
    "//": "M0 8L8 0",
    "\\\\": "M0 0L8 8",
    "xx": "M0 8L8 0M0 0L8 8",
    "--": "M0 4L8 4",
    "||": "M4 0L4 8",
    "++": "M0 4L8 4M4 0L4 8",
    "..": "M3 4h2",
    "oo": "M2 4a2 2 0 1 0 4 0a2 2 0 1 0 -4 0",
}


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


@dataclass(frozen=True)
class Moment:
    """Bytes by owner at `t_s`, seconds on any clock that goes on."""

    t_s: float
    stack: Stack

    @property
    def used_bytes(self) -> float:
        return sum(self.stack.values())


def memory_svg(
    bars: Sequence[Bar], *, capacity_bytes: float, history: Sequence[Moment] = ()
) -> str:
    """The bars under each other against a dashed line at the capacity, under them the history in
    the same colours, and a legend, as HTML."""
    if not bars:
        return ""
    seen = legend([*(bar.parts for bar in bars), *(moment.stack for moment in history)])
    key = f"h{zlib.crc32(repr((bars, len(history))).encode()):x}"  # ids count in the whole page
    longest = max(bar.total + bar.others_bytes for bar in bars) or 1.0
    far = is_far(capacity_bytes, longest)
    per_byte = _BAR / (longest if far else max(longest, capacity_bytes) * 1.02)
    foot = _TOP + _ROW * len(bars)
    inside = [_defs(seen, key), *(_row(b, i, per_byte, key) for i, b in enumerate(bars))]
    inside.append(_capacity(capacity_bytes, per_byte, foot, far=far))
    if history:
        inside.append(_area(history, seen, capacity_bytes, foot + 16, key))
    width, height = _LABEL + _BAR + _NOTE, foot + (_AREA + 36 if history else 6)
    spoken = "; ".join(f"{bar.label} {format_bytes(bar.total)}" for bar in bars)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" style="width:100%;max-width:{width}px;'
        'height:auto" font-family="sans-serif" font-size="12" fill="currentColor" aria-label="'
        f'memory by owner: {escape(spoken)}; capacity {format_bytes(capacity_bytes)}">'
        f"{''.join(inside)}</svg>{_legend(seen, bars, key)}"
    )


# ------------------------------------------------------------------------------------------ bars


def _defs(seen: Iterable[Segment], key: str) -> str:
    patterns = (
        f'<pattern id="{key}-{part.owner}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" fill="{part.colour}"/>'
        f'<path d="{_STROKES.get(part.hatch, "")}" stroke="white" stroke-width="1.2" fill="none"/>'
        "</pattern>"
        for part in seen
    )
    return f"<defs>{''.join(patterns)}</defs>"


def _row(bar: Bar, place: int, per_byte: float, key: str) -> str:
    """A measured bar has a full outline, a predicted one a dashed one."""
    top, right = _TOP + _ROW * place, _LABEL + bar.total * per_byte
    parts = [
        _rect(
            _LABEL + part.start * per_byte,
            top,
            part.size * per_byte,
            f'fill="url(#{key}-{part.owner})"',
            f"<title>{part.label}: {format_bytes(part.size)}</title>",
        )
        for part in segments(bar.parts)
    ]
    dash = "" if bar.measured else ' stroke-dasharray="3 2"'
    outline = 'fill="none" stroke="currentColor"'
    parts.append(_rect(_LABEL, top, right - _LABEL, outline + dash))
    if bar.others_bytes:
        width = bar.others_bytes * per_byte
        parts.append(_rect(right, top, width, f'{outline} stroke-opacity="0.5"'))
    middle = top + _ROW / 2 + 3
    return (
        f'<text x="{_LABEL - 8}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>'
        f'{"".join(parts)}<text x="{_LABEL + _BAR + 8}" y="{middle}">{escape(bar.note)}</text>'
    )


def _rect(x: float, top: float, width: float, look: str, inside: str = "") -> str:
    size = f'width="{width:.1f}" height="{_ROW - 10}"'
    return f'<rect x="{x:.1f}" y="{top + 4}" {size} {look}>{inside}</rect>'


def _capacity(capacity_bytes: float, per_byte: float, foot: float, *, far: bool) -> str:
    words, right = f"capacity {format_bytes(capacity_bytes)}", _LABEL + _BAR
    if far:
        return f'<text x="{right}" y="14" text-anchor="end">{words}: far outside this axis</text>'
    x = _LABEL + capacity_bytes * per_byte
    anchor = "end" if x > _LABEL + _BAR / 2 else "start"
    return (
        f'{_dashed(x, 18, x, foot)}<text x="{x:.1f}" y="14" text-anchor="{anchor}">{words}</text>'
    )


def _dashed(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" '
        'stroke-width="2" stroke-dasharray="6 4"/>'
    )


def _legend(seen: Iterable[Segment], bars: Sequence[Bar], key: str) -> str:
    """What each colour is; of a single bar with its bytes."""
    entries = []
    for part in seen:
        n_bytes = f" {format_bytes(bars[0].parts.get(part.owner, 0))}" if len(bars) == 1 else ""
        entries.append(
            '<svg width="14" height="12" style="vertical-align:-1px" aria-hidden="true"><rect '
            f'width="14" height="12" fill="url(#{key}-{part.owner})"/></svg> {part.label}{n_bytes}'
        )
    others = max(bar.others_bytes for bar in bars)
    entries += [f"▯ other processes {format_bytes(others)}"] if others else []
    spans = (f'<span style="margin-right:1em;white-space:nowrap">{e}</span>' for e in entries)
    return f'<div style="line-height:1.6">{"".join(spans)}</div>'


# --------------------------------------------------------------------------------------- history


def _area(
    history: Sequence[Moment],
    owners: Sequence[Segment],
    capacity_bytes: float,
    top: float,
    key: str,
) -> str:
    """The stack over the last minute, from `top` (px) down."""
    now = history[-1].t_s
    seen = [moment for moment in history if now - moment.t_s <= WINDOW_S]
    span = max(now - seen[0].t_s, LEAST_S)
    highest = max(moment.used_bytes for moment in seen)
    near = not is_far(capacity_bytes, highest)
    scale = _AREA / (1.06 * max(highest, capacity_bytes if near else 0, 1))
    foot, right = top + _AREA, _LABEL + _BAR
    xs = [right - _BAR * (now - moment.t_s) / span for moment in seen]
    lower, layers = [0.0] * len(seen), []
    for part in owners:
        upper = [low + m.stack.get(part.owner, 0) for low, m in zip(lower, seen, strict=True)]
        if upper != lower:
            edge = [*zip(xs, upper, strict=True), *reversed([*zip(xs, lower, strict=True)])]
            points = " ".join(f"{x:.0f},{foot - n * scale:.0f}" for x, n in edge)
            layers.append(f'<polygon points="{points}" fill="url(#{key}-{part.owner})"/>')
        lower = upper
    if near:
        layers.append(
            _dashed(_LABEL, foot - capacity_bytes * scale, right, foot - capacity_bytes * scale)
        )
    far = "" if near else ", the capacity is far above this curve"
    return (
        f'{"".join(layers)}<path d="M{_LABEL},{foot} h{_BAR}" stroke="currentColor"/>'
        f'<text x="{_LABEL}" y="{foot + 14}">{span:.0f} s ago</text>'
        f'<text x="{right}" y="{foot + 14}" text-anchor="end">now</text>'
        f'<text x="{_LABEL + _BAR / 2}" y="{foot + 14}" text-anchor="middle">highest '
        f"{format_bytes(highest)}{far}</text>"
    )
