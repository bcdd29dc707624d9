"""From a run folder to its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hybridlab.reporting.html import claims, files, run_info, sections, tables, vega_bundle
from hybridlab.reporting.html.figures import first_picture, pictures
from hybridlab.reporting.html.page import write_page
from hybridlab.reporting.html.traces import traces
from hybridlab.reporting.html.view_model import Run, badge
from hybridlab.reporting.labels import text, text_of

#: Characters of everything that is embedded; with the page's own text it stays below 5 MB.
BUDGET_CHARACTERS = 4_500_000


def build_report(run_dir: Path) -> Path:
    """Write `<run>/index.html`, one page that needs nothing from a network.

    Works on unfinished and damaged runs too: what is missing is named. `RunFolderError` where
    `run_dir` holds no run.
    """
    run = Run(Path(run_dir).absolute())
    content = _content(run)
    later = [vega_bundle.vega_script()] if content["traces"] else []
    path = run.folder / "index.html"
    return write_page(
        path, "report.html.j2", content, scripts=("page.js", "traces.js"), later=later
    )


def _content(run: Run) -> dict[str, Any]:
    downloads = files.files_table(run)
    over_time = _over_time(run)
    inside = sum(len(str(cell)) for row in downloads.rows for cell in row)
    inside += len(over_time["traces"]) + len(over_time["library"])
    shown = pictures(run, budget=BUDGET_CHARACTERS - inside)
    return {
        "run_id": run.name,
        "preset": text_of(run.manifest, "preset"),
        "status": badge(text(run.manifest.get("status"), empty="no manifest")),
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
        "cases": tables.cases_table(run),
        "lost": tables.lost_table(run),
        "notebooks": run_info.notebooks_table(run),
        "params": run_info.params_table(run),
        "machine": run_info.machine_facts(run),
        "method": run_info.method_facts(run),
        "files": downloads,
    }


def _over_time(run: Run) -> dict[str, str]:
    """The traces and the library that draws them, packed; both empty where nothing was traced."""
    found = traces(run)
    if not found["cases"]:
        return {"traces": "", "library": "", "traces_note": ""}
    left_out = found["left_out"]
    note = f"{left_out} more cases are in the tables of the run only: the page stays small."
    return {
        "traces": Markup(vega_bundle.packed(json.dumps(found, separators=(",", ":")))),
        "library": Markup(vega_bundle.packed_vega()),
        "traces_note": note if left_out else "",
    }
