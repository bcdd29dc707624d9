"""The page's tables of cases: every one, and those without a result with their reasons."""

from __future__ import annotations

import pandas as pd

from hybridlab.reporting.figures import speed, wording
from hybridlab.reporting.html.model import (
    EMPTY,
    Cell,
    Run,
    Table,
    as_bytes,
    as_seconds,
    badge,
    table,
    words,
)
from hybridlab.reporting.html.traces import anchor, case_names

_MEMORY = ("load_peak_bytes", "steady_bytes", "request_peak_bytes", "margin_bytes")


def cases_table(run: Run) -> Table:
    """Every case, one row each, to which the claims' evidence leads."""
    cases = run.cases
    medians = _median_latencies(run.tables["trials"])
    watched = set(run.tables["samples"]["case_id"]) | set(run.tables["spans"]["case_id"])
    rows: list[list[Cell | str]] = []
    for name, (_, row) in zip(case_names(cases), cases.iterrows(), strict=True):
        latency_s, n = medians.get((words(row.get("notebook")), row["case_id"]), (None, 0))
        rows.append(
            [
                name,
                words(row.get("notebook")),
                badge(words(row["status"], empty="")),
                *(as_bytes(row.get(column)) for column in _MEMORY),
                as_seconds(latency_s),
                str(n) if n else EMPTY,
                as_seconds(row.get("duration_s")),
                Cell("trace", href="#traces") if row["case_id"] in watched else EMPTY,
            ]
        )
    return table(
        (
            "Case",
            "Notebook",
            "Status",
            "Load peak",
            "At rest",
            "Request peak",
            "Margin",
            "Median latency",
            "n",
            "Took",
            "Over time",
        ),
        rows,
        numeric=(3, 4, 5, 6, 7, 8, 9),
        empty="No case was started.",
        anchors=anchors(cases),
    )


def anchors(cases: pd.DataFrame) -> list[str]:
    """The id of each case's row, in the order of the cases."""
    return [
        anchor(words(row.get("notebook"), empty=""), words(row["case_id"], empty=""))
        for _, row in cases.iterrows()
    ]


def _median_latencies(trials: pd.DataFrame) -> dict[tuple[str, str], tuple[float, int]]:
    """(median latency in seconds, n) per notebook and case, first requests left out."""
    if trials.empty:
        return {}
    later = trials[~speed.is_first(trials)]
    later = later.assign(latency_s=wording.numbers(later, "latency_s")).dropna(subset=["latency_s"])
    notebooks = later["notebook"].map(words) if "notebook" in later else EMPTY
    grouped = later.assign(notebook=notebooks).groupby(["notebook", "case_id"])["latency_s"]
    return {
        (str(notebook), str(case_id)): (float(values.median()), len(values))
        for (notebook, case_id), values in grouped
    }


def lost_table(run: Run) -> Table:
    """Cases that were skipped, invalid or failed, with their reasons."""
    cases = run.cases
    lost = (cases["status"] != "ok").to_list()
    rows: list[list[Cell | str]] = [
        [
            Cell(name, href=f"#{target}"),
            words(row.get("notebook")),
            badge(words(row["status"], empty="")),
            words(row["reason"], empty="no reason recorded"),
        ]
        for is_lost, name, target, (_, row) in zip(
            lost, case_names(cases), anchors(cases), cases.iterrows(), strict=True
        )
        if is_lost
    ]
    return table(
        ("Case", "Notebook", "Status", "Reason"),
        rows,
        empty="Every case that was started ended well." if len(cases) else "No case was started.",
    )
