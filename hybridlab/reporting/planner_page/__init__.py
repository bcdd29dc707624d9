"""The planner as a page without a server: one file, nothing fetched.

`facts` are the package's own tables as JSON; `planner.js` and `pick.js` have the formulas of
`hybridlab.planner` and the rule of `hybridlab.analysis.pick`, `view.js` draws. A test asks both
languages the same questions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hybridlab import catalog
from hybridlab.analysis.pick import RULE
from hybridlab.catalog.kernels import math_bytes_per_score
from hybridlab.reporting.palette import OWNER_LOOK, PAGE_COLOURS, css_background
from hybridlab.reporting.planner_page.facts import FIRST, NUMBERS, facts
from hybridlab.reporting.templating import environment, script_source

__all__ = ["facts", "planner_embed", "planner_page", "planner_script"]

FOLDER = Path(__file__).parent
#: In the order in which each uses the ones before.
SCRIPTS = ("planner.js", "pick.js", "view.js")


def planner_page() -> str:
    """The whole page, with a content policy that allows its own script alone."""
    script = planner_script()
    return _render(
        "page.html.j2",
        css=_css(),
        colours=PAGE_COLOURS,
        fragment=_fragment(script, level=1),
        script_hash=Markup(script_source(script)),
    )


def planner_embed() -> str:
    """The planner as a part of another page: its style is scoped, its ids begin with `planner`.
    Where that page has a content policy, it must allow `planner_script`."""
    return Markup("<style>\n{}</style>\n{}").format(_css(), _fragment(planner_script(), level=2))


def planner_script() -> str:
    """The one script of the fragment; the facts beside it are data, which no policy stops."""
    parts = [(FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS]
    start = 'const root = document.getElementById("planner");\n'
    start += 'const facts = JSON.parse(document.getElementById("planner-facts").textContent);\n'
    return "\n".join(['\n(() => {\n"use strict";', start, *parts, "})();\n"])


def _fragment(script: str, *, level: int) -> Markup:
    known = facts()
    return _render(
        "fragment.html.j2",
        level=level,
        rule=RULE,
        torch=_torch(),
        cards={own.name: own.title for own in catalog.CARDS.values()},
        sizes=catalog.WHISPER_SIZES,
        others=[name for name in known["whispers"] if name not in catalog.WHISPER_SIZES],
        backends=catalog.BACKENDS.values(),
        voxtrals=list(known["voxtrals"]),
        llm_dtypes=catalog.LLM_DTYPES,
        attentions=catalog.ATTENTIONS,
        first=FIRST,
        numbers=NUMBERS,
        facts=Markup(json.dumps(known, separators=(",", ":")).replace("<", "\\u003c")),
        script=Markup(script),
    )


def _torch() -> str:
    """Whose math kernel the bytes of scores are (`math_bytes_per_score`)."""
    _, expected, _ = math_bytes_per_score()
    return "torch 2.13 or later" if expected == 9 else "torch before 2.13"


def _css() -> Markup:
    looks = {owner: css_background(*look) for owner, look in OWNER_LOOK.items()}
    return _render("planner.css.j2", colours=PAGE_COLOURS, looks=looks)


def _render(template: str, **content: Any) -> Markup:
    return Markup(environment(FOLDER).get_template(template).render(content))
