"""What became of each claim, with links to what in the page says so."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hybridlab.reporting.html.cases import anchors
from hybridlab.reporting.html.figures import Picture
from hybridlab.reporting.html.model import EMPTY, Cell, Run, Table, badge, table, words

#: Where in the page a claim of each kind is shown: (section, words), and how the figures are named.
SHOWN_AT: dict[str, tuple[tuple[str, str], tuple[str, ...]]] = {
    "memory": (("memory", "memory per size"), ("07-memory", "02-memory", "memory-bars")),
    "fit": (("options", "options"), ("02-options", "00-plan")),
    "time": (("strategies", "strategies"), ("07-latency", "04-latency", "latency")),
    "strategy": (("strategies", "strategies"), ("07-pareto", "07-latency", "latency")),
    "ageing": (("cases", "cases"), ("03-ageing",)),
    "quality": (("cases", "cases"), ("02-quality-memory",)),
}
#: So many cases are linked one by one; of more, the first of each arm.
MOST_LINKS = 4


def claims_table(run: Run, pictures: list[Picture]) -> Table:
    """What became of each sentence of the original analysis."""
    rows = run.tables["claims"]
    targets = dict(zip(run.cases["case_id"], anchors(run.cases), strict=True))
    arms = dict(zip(run.cases["case_id"], _arms(run.cases), strict=True))
    return table(
        ("Claim", "Expected", "Measured", "Verdict", "Reason", "Evidence"),
        [
            (
                words(row.get("sentence"), empty=words(row["claim"])),
                words(row["expected"]),
                words(row["measured"]),
                badge(words(row["verdict"], empty="")),
                words(row["reason"]),
                _evidence(row, targets, arms, pictures),
            )
            for _, row in rows.iterrows()
        ],
        empty="No claim was judged: 07_verdict did not finish.",
        anchors=[f"claim-{words(name, empty=str(i))}" for i, name in enumerate(rows["claim"])],
    )


def _arms(cases: pd.DataFrame) -> list[str]:
    return [
        f"{words(row['experiment'])} {words(row.get('strategy'))} {words(row.get('variant'))}"
        for _, row in cases.iterrows()
    ]


def _evidence(
    row: pd.Series[Any], targets: dict[str, str], arms: dict[str, str], pictures: list[Picture]
) -> Cell:
    """Links to the cases that a claim was judged by, to the section and to the figure; a claim that
    only the planner could judge leads to its predictions."""
    text = words(row.get("evidence"), empty="")
    ids = [name for name in text.replace("cases: ", "").split(", ") if name in targets]
    links = _case_links(ids, targets, arms)
    section, names = SHOWN_AT.get(words(row.get("kind"), empty=""), (None, ()))
    if text == "planner":
        links.append(Cell("options", href="#options"))
    elif section and ids:
        links.append(Cell(section[1], href=f"#{section[0]}"))
        shown = {picture.name: picture for picture in pictures}
        found = next((shown[name] for name in names if name in shown), None)
        if found:
            links.append(Cell(f"figure {found.name}", href=f"#{found.anchor}"))
    return Cell("" if ids else text or EMPTY, links=tuple(links))


def _case_links(ids: list[str], targets: dict[str, str], arms: dict[str, str]) -> list[Cell]:
    if len(ids) <= MOST_LINKS:
        return [Cell(arms[name], href=f"#{targets[name]}") for name in ids]
    by_arm: dict[str, list[str]] = {}
    for name in ids:
        by_arm.setdefault(arms[name], []).append(name)
    return [
        Cell(f"{arm} ({len(own)})" if len(own) > 1 else arm, href=f"#{targets[own[0]]}")
        for arm, own in by_arm.items()
    ]
