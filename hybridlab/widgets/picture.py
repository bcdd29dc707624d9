"""Memory by owner as a picture: a bar against the capacity, the last minute below it.

No kernel, no widgets: bytes in, SVG out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hybridlab.experiments.broadcast import Told
from hybridlab.reporting.figures.marks import OWNER_WORDS
from hybridlab.reporting.figures.palette import CAPACITY_COLOUR, OWNER_COLOURS, OWNER_HATCHES
from hybridlab.units import format_bytes

#: The last so many seconds are drawn, and at least this many.
WINDOW_S, LEAST_S = 60.0, 10.0
WIDTH, BAR_Y, BAR, AREA_Y, AREA = 640, 18, 24, 66, 130
HEIGHT = AREA_Y + AREA + 18
#: From the bottom to the top of a stack.
OWNERS = ("base", "voxtral", "whisper", "unexplained", "load", "request")
#: A capacity beyond so many times the stack's height would squash the curve.
FAR = 6
_STROKES = {
    "": "",
    "//": "M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4",
    "\\\\": "M-2,6 l4,4 M0,0 l8,8 M6,-2 l4,4",
    "xx": "M0,0 l8,8 M0,8 l8,-8",
    "--": "M0,4 l8,0",
    "..": "M2,2 l1,0 M6,6 l1,0",
}


@dataclass(frozen=True)
class Moment:
    """Bytes by owner at `t_s`, seconds on any clock that goes on."""

    t_s: float
    stack: Mapping[str, int]

    @property
    def used_bytes(self) -> int:
        return sum(self.stack.values())


def stack_of(told: Told, used_bytes: int) -> dict[str, int]:
    """What is in use by owner: the named ones as the case says, the rest by what it is about. The
    sum is what is in use: pages of weights that are not touched yet are not resident on a CPU."""
    stack, left = {}, used_bytes
    for owner in ("base", "voxtral", "whisper"):
        stack[owner] = min(told.owners.get(owner, 0), left)
        left -= stack[owner]
    if not told.owners:  # it has only begun
        return {**stack, "base": left}
    stack["unexplained"] = min(told.unnamed_bytes, left)
    rest = _rest_owner(told.stage)
    stack[rest] = stack.get(rest, 0) + left - stack["unexplained"]
    return stack


def _rest_owner(stage: str) -> str:
    """Whose the bytes above those at rest are."""
    if stage.startswith("load"):
        return "load"
    return "unexplained" if stage in ("", "housekeeping", "close") else "request"


def picture(history: Sequence[Moment], told: Told) -> str:
    """The bar of the last moment, the curve of the last minute and the legend, as HTML."""
    if not history:
        return ""
    now = history[-1]
    words = f"{format_bytes(now.used_bytes)} in use of {format_bytes(told.capacity_bytes)}"
    inside = "".join((_patterns(), _bar(now, told), _area(history, told.capacity_bytes)))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="max-width:100%" role="img" '
        f'aria-label="memory by owner: {words}" font-size="11" font-family="sans-serif" '
        f'fill="currentColor">{inside}</svg>{_legend(now, told)}'
    )


# -------------------------------------------------------------------------------------------- bar


def _bar(now: Moment, told: Told) -> str:
    """To the capacity's own scale; what others hold ends at the capacity, so that the gap is what
    is free."""
    full = max(told.capacity_bytes, now.used_bytes, 1)
    scale = (WIDTH - 4) / full
    parts, left = [], 0.0
    for owner, n_bytes in _present(now.stack):
        parts.append(_box(left, n_bytes * scale, owner))
        left += n_bytes * scale
    if told.others_bytes and not told.enveloped:
        width = max(0.0, min(told.others_bytes * scale, told.capacity_bytes * scale - left))
        parts.append(
            f'<rect x="{told.capacity_bytes * scale - width:.1f}" y="{BAR_Y}" width="{width:.1f}" '
            f'height="{BAR}" fill="none" stroke="currentColor" stroke-dasharray="2 2"/>'
        )
    line = told.capacity_bytes * scale
    return (
        f'<text x="0" y="12">{format_bytes(now.used_bytes)} in use</text>'
        f'<text x="{WIDTH}" y="12" text-anchor="end">capacity '
        f"{format_bytes(told.capacity_bytes)}</text>"
        f'<rect x="0" y="{BAR_Y}" width="{line:.1f}" height="{BAR}" fill="#8881"/>'
        f"{''.join(parts)}{_dashed(line, BAR_Y - 4, line, BAR_Y + BAR + 4)}"
    )


def _box(x: float, width: float, owner: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{BAR_Y}" width="{width:.1f}" height="{BAR}" '
        f'fill="url(#{_pattern(owner)})"/>'
    )


# ------------------------------------------------------------------------------------------- area


def _area(history: Sequence[Moment], capacity_bytes: int) -> str:
    """The stack over the last minute."""
    now = history[-1].t_s
    seen = [moment for moment in history if now - moment.t_s <= WINDOW_S]
    span = max(now - seen[0].t_s, LEAST_S)
    highest = max(moment.used_bytes for moment in seen)
    near = capacity_bytes <= FAR * highest
    top = 1.06 * max(highest, capacity_bytes if near else 0, 1)
    xs = [WIDTH * (1 - (now - moment.t_s) / span) for moment in seen]
    lower, layers = [0.0] * len(seen), []
    for owner in OWNERS:
        upper = [low + m.stack.get(owner, 0) for low, m in zip(lower, seen, strict=True)]
        if upper != lower:
            edge = [*zip(xs, upper, strict=True), *reversed([*zip(xs, lower, strict=True)])]
            points = " ".join(f"{x:.0f},{_height(n, top):.0f}" for x, n in edge)
            layers.append(f'<polygon points="{points}" fill="url(#{_pattern(owner)})"/>')
        lower = upper
    if near:
        y = _height(capacity_bytes, top)
        layers.append(_dashed(0, y, WIDTH, y))
    foot = AREA_Y + AREA
    far = "" if near else f", capacity {format_bytes(capacity_bytes)}: far above this curve"
    return (
        f'{"".join(layers)}<path d="M0,{foot} h{WIDTH}" stroke="currentColor"/>'
        f'<text x="0" y="{AREA_Y - 6}">highest {format_bytes(highest)}{far}</text>'
        f'<text x="0" y="{foot + 14}">{span:.0f} s ago</text>'
        f'<text x="{WIDTH}" y="{foot + 14}" text-anchor="end">now</text>'
    )


def _height(n_bytes: float, top: float) -> float:
    return AREA_Y + AREA * (1 - n_bytes / top)


# ------------------------------------------------------------------------------- lines and legend


def _dashed(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    line = f'<line {ends} stroke="{{}}" stroke-width="{{}}" {{}}/>'
    # light underneath, so that it is seen on a dark page, too
    return line.format("#ffffff", 3, "") + line.format(
        CAPACITY_COLOUR, 1.6, 'stroke-dasharray="6 4"'
    )


def _pattern(owner: str) -> str:
    return f"hybridlab-{owner}"


def _patterns() -> str:
    """The owners' colours, and the hatches that are their second channel."""
    made = "".join(
        f'<pattern id="{_pattern(owner)}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" fill="{OWNER_COLOURS[owner]}"/>'
        f'<path d="{_STROKES[OWNER_HATCHES[owner]]}" stroke="#ffffff" stroke-width="1"/></pattern>'
        for owner in OWNERS
    )
    return f"<defs>{made}</defs>"


def _legend(now: Moment, told: Told) -> str:
    entries = [
        f'<svg width="12" height="12" style="vertical-align:-1px" aria-hidden="true">'
        f'<rect width="12" height="12" fill="url(#{_pattern(owner)})"/></svg> '
        f"{OWNER_WORDS[owner]} {format_bytes(n_bytes)}"
        for owner, n_bytes in _present(now.stack)
    ]
    if told.others_bytes and not told.enveloped:
        entries.append(f"┆ other processes {format_bytes(told.others_bytes)}")
    spans = (f'<span style="margin-right:1em;white-space:nowrap">{e}</span>' for e in entries)
    return f'<div style="line-height:1.6">{"".join(spans)}</div>'


def _present(stack: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    return ((owner, stack[owner]) for owner in OWNERS if stack.get(owner, 0) > 0)
