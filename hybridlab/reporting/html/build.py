"""From a run folder to its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hybridlab.reporting.html import (
    about,
    cases,
    claims,
    downloads,
    library,
    method,
    sections,
    tables,
)
from hybridlab.reporting.html.figures import first_picture, pictures
from hybridlab.reporting.html.model import Run, badge, words
from hybridlab.reporting.html.page import write_page
from hybridlab.reporting.html.traces import traces

#: Characters of everything that is embedded; with the page's own text it stays below 5 MB.
BUDGET_CHARACTERS = 4_500_000


def build_report(run_dir: Path) -> Path:
    """Write `<run>/index.html`, one page that needs nothing from a network.

    Works on unfinished and damaged runs too: what is missing is named. `RunFolderError` where
    `run_dir` holds no run.
    """
    run = Run(Path(run_dir).absolute())
    content = _content(run)
    later = [library.vega_script()] if content["traces"] else []
    path = run.folder / "index.html"
    return write_page(
        path, "report.html.j2", content, scripts=("page.js", "traces.js"), later=later
    )


def _content(run: Run) -> dict[str, Any]:
    files = downloads.files_table(run)
    over_time = _over_time(run)
    inside = sum(len(cell.href) for row in files.rows for cell in row)
    inside += len(over_time["traces"]) + len(over_time["library"])
    shown = pictures(run, budget=BUDGET_CHARACTERS - inside)
    return {
        "run_id": run.name,
        "preset": words(run.manifest.get("preset"), empty=""),
        "status": badge(words(run.manifest.get("status"), empty="no manifest")),
        "answer": sections.answer(run),
        "has_verdict": bool(run.verdict),
        "simulated": sections.simulated(run),
        "first": first_picture(run),
        "missing": sections.missing(run),
        "recommendation": sections.recommendation(run),
        "cards": sections.cards(run),
        "options": tables.options_table(run),
        "every_option": tables.options_table(run, every=True),
        "memory": tables.memory_table(run),
        "strategies": tables.strategies_table(run),
        "containers": tables.containers_table(run),
        "claims": claims.claims_table(run, shown),
        **over_time,
        "pictures": shown,
        "cases": cases.cases_table(run),
        "lost": cases.lost_table(run),
        "notebooks": about.notebooks_table(run),
        "params": about.params_table(run),
        "machine": about.machine_facts(run),
        "method": method.method_facts(run),
        "files": files,
    }


def _over_time(run: Run) -> dict[str, str]:
    """The traces and the library that draws them, packed; both empty where nothing was traced."""
    found = traces(run)
    if not found["cases"]:
        return {"traces": "", "library": "", "traces_note": ""}
    left_out = found["left_out"]
    note = (
        f"{left_out} more cases are in the tables of the run only: the page stays small."
        if left_out
        else ""
    )
    return {
        "traces": Markup(library.packed(json.dumps(found, separators=(",", ":")))),
        "library": Markup(library.packed_vega()),
        "traces_note": note,
    }
