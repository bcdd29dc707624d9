"""From a run folder to its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hybridlab.report import about, sections, tables
from hybridlab.report.figures import pictures
from hybridlab.report.model import Run, badge, words

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


def build_report(run_dir: Path) -> Path:
    """Write `<run>/index.html`, one page without scripts or anything from a network.

    Works on unfinished runs too: what is missing is named. `RunFolderError` where `run_dir` holds
    no run.
    """
    run = Run(Path(run_dir).absolute())
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(_content(run))
    path = run.folder / "index.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def _content(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.folder.name,
        "preset": words(run.manifest.get("preset"), empty=""),
        "status": badge(words(run.manifest.get("status"), empty="no manifest")),
        "answer": sections.answer(run),
        "has_verdict": bool(run.verdict),
        "control": tables.CONTROL,
        "missing": sections.missing(run),
        "recommendation": sections.recommendation(run),
        "cards": sections.cards(run),
        "options": tables.options_table(run),
        "memory": tables.memory_table(run),
        "strategies": tables.strategies_table(run),
        "claims": tables.claims_table(run),
        "pictures": pictures(run),
        "notebooks": about.notebooks_table(run),
        "lost": tables.lost_table(run),
        "params": about.params_table(run),
        "machine": about.machine_facts(run),
        "files": about.files_table(run),
    }
