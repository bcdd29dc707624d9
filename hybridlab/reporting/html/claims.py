"""What became of each claim, with links to what in the page says so."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from hybridlab.reporting.html.figures import Picture, pictures
from hybridlab.reporting.html.tables import anchors
from hybridlab.reporting.html.view_model import Run, Table, badge, link, table
from hybridlab.reporting.labels import EMPTY, arm_of, text, text_of

#: Where in the page a claim of each kind is shown: section, words, and how the figures are named.
SHOWN_AT: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "memory": ("memory", "memory per size", ("07-memory", "02-memory", "memory-bars")),
    "fit": ("options", "options", ("00-plan",)),
    "time": ("strategies", "strategies", ("07-latency", "04-latency", "latency")),
    "strategy": ("strategies", "strategies", ("07-pareto", "07-latency", "latency")),
    "soak": ("cases", "cases", ("03-soak",)),
    "quality": ("cases", "cases", ("02-quality-memory",)),
}
#: So many cases are linked one by one; of more, the first of each arm.
MOST_LINKS = 4


def claims_table(run: Run) -> Table:
    """What became of each statement of the document."""
    rows = run.tables["claims"]
    targets = dict(zip(run.cases["case_id"], anchors(run.cases), strict=True))
    arms = {
        row["case_id"]: f"{text(row['experiment'])} {arm_of(row)}"
        for _, row in run.cases.iterrows()
    }
    shown = {picture.name: picture for picture in pictures(run)}
    return table(
        [
            {
                "The document's words": quoted(row),
                "Judged": text(row["expected"]),
                "Measured": text(row["measured"]),
                "Verdict": badge(text_of(row, "verdict")),
                "Reason": text(row["reason"]),
                "Evidence": _evidence(row, targets, arms, shown),
            }
            for _, row in rows.iterrows()
        ],
        empty="No claim was judged: 07_verdict did not finish.",
        anchors=[f"claim-{text(name, empty=str(i))}" for i, name in enumerate(rows["claim"])],
    )


def quoted(row: pd.Series[Any]) -> str:
    """'“3-4GB” (line 15)'; the id where a run holds no quotation."""
    if pd.isna(row.get("quote")):
        return text(row["claim"])
    where = "" if pd.isna(row.get("line")) else f" (line {int(row['line'])})"
    return f"“{row['quote']}”{where}"


def _evidence(
    row: pd.Series[Any], targets: dict[str, str], arms: dict[str, str], shown: dict[str, Picture]
) -> Markup | str:
    """Links to the cases that a claim was judged by, to the section and to the figure; a claim that
    only the planner could judge leads to its predictions."""
    basis = text_of(row, "basis")
    if basis == "planner":
        return link("options", "#options")
    ids = [name for name in basis.replace("cases: ", "").split(", ") if name in targets]
    if not ids:
        return basis or EMPTY
    links = _case_links(ids, targets, arms)
    section, words, names = SHOWN_AT.get(text_of(row, "kind"), ("", "", ()))
    links += [link(words, f"#{section}")] if section else []
    figure = next((shown[name] for name in names if name in shown), None)
    links += [link(f"figure {figure.name}", f"#{figure.anchor}")] if figure else []
    return Markup("<br>").join(links)


def _case_links(ids: list[str], targets: dict[str, str], arms: dict[str, str]) -> list[Markup]:
    if len(ids) <= MOST_LINKS:
        return [link(arms[name], f"#{targets[name]}") for name in ids]
    by_arm: dict[str, list[str]] = {}
    for name in ids:
        by_arm.setdefault(arms[name], []).append(name)
    return [
        link(f"{arm} ({len(own)})" if len(own) > 1 else arm, f"#{targets[own[0]]}")
        for arm, own in by_arm.items()
    ]
