"""Colours and their second channels: hatch, marker or dash tell apart what a colour alone may not.

`tests/reporting/figures/test_colours.py` looks at every pair as colour-blind eyes and grey paper
do.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import seaborn as sns

_PALETTE = [mpl.colors.to_hex(colour) for colour in sns.color_palette("colorblind")]

#: One colour per owner of memory, through every figure; the hatch is the second channel.
OWNER_COLOURS = {
    "base": _PALETTE[7],
    "voxtral": _PALETTE[0],
    "whisper": _PALETTE[1],
    "request": _PALETTE[2],
    "load": _PALETTE[4],
    "unexplained": "#d0d0d0",
    "server": "#8c564b",
    "second server": _PALETTE[8],
    "gateway": _PALETTE[3],
}
OWNER_HATCHES = {
    "base": "",
    "voxtral": "//",
    "whisper": "\\\\",
    "request": "..",
    "load": "xx",
    "unexplained": "--",
    "server": "++",
    "second server": "||",
    "gateway": "oo",
}
#: Parts of a request that is asked over HTTP: colour and hatch.
HTTP_LOOK = {
    "work": ("#7b3fa0", ""),
    "wait": (_PALETTE[8], ".."),
    "gateway": (_PALETTE[3], "oo"),
    "http": (_PALETTE[9], "//"),
}
#: Tenants as points.
TENANT_MARKERS = {"voxtral": "o", "whisper": "s"}
#: Strategies have colours that no tenant has, and a marker each; variants of one have a dash each.
STRATEGY_COLOURS = {
    "solo": "#444444",
    "sequential": _PALETTE[3],
    "parallel": "#7b3fa0",
    "pipelined": _PALETTE[5],
    "swapping": _PALETTE[9],
}
STRATEGY_MARKERS = {
    "solo": "o",
    "sequential": "s",
    "parallel": "^",
    "pipelined": "v",
    "swapping": "D",
}
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)))
#: Moments of a case.
MOMENT_LOOK = {
    "load_peak": ("^", OWNER_COLOURS["load"]),
    "steady": ("o", "#333333"),
    "request_peak": ("s", OWNER_COLOURS["request"]),
}
#: Remedies against ageing.
REMEDY_LOOK = {
    "none": ("o", "#222222"),
    "empty-cache": ("s", _PALETTE[2]),
    "expandable-segments": ("^", _PALETTE[4]),
    "restart": ("D", _PALETTE[9]),
}
#: Stages of a swap: colour and hatch. Blues wait for memory, warm ones move bytes.
STAGE_LOOK = {
    "disk": ("#8c564b", "xx"),
    "load": (_PALETTE[1], "//"),
    "allocate": (_PALETTE[9], ".."),
    "copy-in": (_PALETTE[3], "\\\\"),
    "copy-out": (_PALETTE[4], "++"),
    "release": (_PALETTE[0], ""),
}
#: What the planner foretells.
PREDICTED_LOOK = {
    "voxtral weights": ("o", OWNER_COLOURS["voxtral"]),
    "whisper weights": ("s", OWNER_COLOURS["whisper"]),
    "request": ("^", OWNER_COLOURS["request"]),
    "whole case": ("D", OWNER_COLOURS["base"]),
}
MUTED = "#555555"
CAPACITY_COLOUR = "#222222"


def tint(colour: str, share: float) -> tuple[float, float, float]:
    """A share of a colour on white, opaque: in an SVG a see-through face would hide its hatch."""
    red, green, blue = mpl.colors.to_rgb(colour)
    return (1 - share * (1 - red), 1 - share * (1 - green), 1 - share * (1 - blue))


def strategy_look(strategy: str) -> tuple[str, str]:
    """Marker and colour of a strategy; one that is not known is grey."""
    return STRATEGY_MARKERS.get(strategy, "P"), STRATEGY_COLOURS.get(strategy, MUTED)
