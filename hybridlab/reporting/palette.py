"""Colours and their second channels: hatch, marker or dash tell apart what a colour alone may not.

Figures, reports, live views and the terminal take their colours from here; the server's page.css
has a copy that a test compares. Every set is checked against the
sight of colour-blind readers and against grey paper by tests/reporting/test_palette.py.
"""

from __future__ import annotations

from typing import Any

from hybridlab import catalog

#: seaborn's palette `colorblind`, written out: the terminal needs colours without matplotlib.
COLORBLIND = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#fbafe4",
    "#949494",
    "#ece133",
    "#56b4e9",
)
_BLUE, _ORANGE, _GREEN, _RED, _PINK, _, _, _GREY, _YELLOW, _SKY = COLORBLIND

#: Colour and hatch of each owner of memory, from the bottom to the top of a stack.
OWNER_LOOK = {
    "base": (_GREY, ""),
    "llm": (_BLUE, "//"),
    "asr": (_ORANGE, "\\\\"),
    "server": ("#8c564b", "++"),
    "gateway": (_RED, "oo"),
    "unattributed": ("#d0d0d0", "--"),
    "load": (_PINK, "xx"),
    "request": (_GREEN, ".."),
}
OWNER_COLOURS = {owner: colour for owner, (colour, _) in OWNER_LOOK.items()}
#: Models as points.
MODEL_MARKERS = {"llm": "o", "asr": "s"}
#: Strategies have colours that no owner beside them has, and a marker each; variants of one have a
#: dash each.
STRATEGY_LOOK = {name: (own.colour, own.marker) for name, own in catalog.STRATEGIES.items()}
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)))
#: Moments of a case.
MOMENT_LOOK = {
    "load_peak": (OWNER_COLOURS["load"], "^"),
    "idle": ("#333333", "o"),
    "request_peak": (OWNER_COLOURS["request"], "s"),
}
#: What stays on the card and what a request adds, of a pair that fits and of one that does not:
#: dark against pale, also for those who see no green.
FIT_LOOK = {True: ("#14603f", "#57a680"), False: ("#b8b8b8", "#e2e2e2")}
#: Remedies against growth of memory.
REMEDY_LOOK = {
    "none": ("#222222", "o"),
    "empty-cache": (_GREEN, "s"),
    "expandable-segments": (_PINK, "^"),
    "restart": (_SKY, "D"),
}
#: Stages of a swap: colour and hatch. Blues wait for memory, warm ones move bytes.
STAGE_LOOK = {
    "disk": ("#8c564b", "xx"),
    "load": (_ORANGE, "//"),
    "allocate": (_SKY, ".."),
    "copy-in": (_RED, "\\\\"),
    "copy-out": (_PINK, "++"),
    "release": (_BLUE, ""),
}
#: Phases in the order of a request: how strong the model's colour is, and the hatch.
PHASE_LOOK = {
    "disk": (0.3, "\\\\\\"),
    "load": (0.45, "xxx"),
    "host": (0.3, "xxx"),
    "pin": (0.3, "***"),
    "allocate": (0.3, "ooo"),
    "copy-in": (0.6, "|||"),
    "copy-out": (0.45, "+++"),
    "prepare": (0.2, ""),
    "encode": (1.0, ""),
    "prefill": (0.75, "///"),
    "decode": (0.5, "..."),
    "release": (0.25, "---"),
    "lost": (0.12, "ooo"),
    "restart": (0.45, "|||"),
    "wait": (0.08, ""),
    "http": (0.2, "|||"),
    "gateway": (0.45, "ooo"),
    "work": (0.75, ""),
}
#: What the planner predicts.
PREDICTED_LOOK = {
    "llm weights": (OWNER_COLOURS["llm"], "o"),
    "asr weights": (OWNER_COLOURS["asr"], "s"),
    "request": (OWNER_COLOURS["request"], "^"),
    "whole case": (OWNER_COLOURS["base"], "D"),
}
MUTED = "#555555"
#: Lines of comparison: a diagonal, a zero, a share.
GUIDE = "#888888"
CAPACITY_COLOUR = "#222222"

#: Of the pages that are written, by CSS variable; of a word, `-bg` is the ground that it stands on.
PAGE_COLOURS = {
    "light": {
        **{"page": "#f6f7f9", "card": "#ffffff", "ink": "#1b1f24", "soft": "#59636e"},
        **{"line": "#d5dae0", "accent": "#0161a0", "good": "#14603f", "good-bg": "#d9f2e3"},
        **{"bad": "#8f1d18", "bad-bg": "#fbdedb", "warn": "#6b4700", "warn-bg": "#fcecc5"},
        **{"plain": "#454d56", "plain-bg": "#e6e9ed"},
    },
    "dark": {
        **{"page": "#12161b", "card": "#1b2129", "ink": "#e7ebf0", "soft": "#a2acb8"},
        **{"line": "#36404b", "accent": "#7cc0f5", "good": "#9be3bd", "good-bg": "#173f2c"},
        **{"bad": "#ffb4ad", "bad-bg": "#54211e", "warn": "#f6d488", "warn-bg": "#4a3812"},
        **{"plain": "#cdd4dc", "plain-bg": "#323b46"},
    },
}


def _lines(angle: int) -> str:
    return f"repeating-linear-gradient({angle}deg,transparent 0 5px,#fffc 5px 6px)"


#: Hatches of the figures as layers of a CSS background.
_CSS_HATCHES = {
    "//": _lines(135),
    "\\\\": _lines(45),
    "xx": f"{_lines(45)},{_lines(135)}",
    "--": _lines(0),
    "++": f"{_lines(0)},{_lines(90)}",
    "..": "radial-gradient(#fffc 1px,transparent 1px) 0 0/6px 6px",
    "oo": "radial-gradient(#fffc 2px,transparent 2px) 0 0/8px 8px",
}


def css_background(colour: str, hatch: str) -> str:
    """A colour under its hatch."""
    layer = _CSS_HATCHES.get(hatch)
    return f"{layer},{colour}" if layer else colour


def tint(colour: str, share: float) -> tuple[float, float, float]:
    """A share of a colour on white, opaque: in an SVG a see-through face would hide its hatch."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return (1 - share * (1 - red), 1 - share * (1 - green), 1 - share * (1 - blue))


def strategy_look(strategy: str) -> tuple[str, str]:
    """Colour and marker of a strategy; one that is not known is grey."""
    own = catalog.STRATEGIES.get(strategy)
    return (own.colour, own.marker) if own is not None else (MUTED, "P")
