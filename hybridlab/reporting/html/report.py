"""From a run folder to its page: the registry of the page's sections."""

from __future__ import annotations

from pathlib import Path

from hybridlab.config.preset_files import comment
from hybridlab.reporting.html import answer, claims, figures, files, run_info, tables, traces
from hybridlab.reporting.html.page import Section, blocks_of, render, write_page
from hybridlab.reporting.html.view_model import Run, badge
from hybridlab.reporting.labels import text, text_of

#: In the order of the page. Another section is a function of a `Run` and a line here.
SECTIONS = (
    Section(
        *("fits", "What fits: load peak, idle and request peak"), *(figures.what_fits, "What fits")
    ),
    Section("missing", "What this run lacks", answer.missing_block),
    Section("recommendation", "Recommendation", answer.recommendation),
    Section("key", "Key figures", answer.cards_block),
    Section("options", "Options A, B and C", tables.options_block, "Options"),
    Section("memory", "Memory: each Whisper beside Voxtral", tables.memory_table, "Memory"),
    Section(
        *("strategies", "Strategies: how the two share the device"),
        *(tables.strategies_block, "Strategies"),
    ),
    Section("claims", "Claims of the document", claims.claims_table, "Claims"),
    Section("traces", "Over time: memory and phases", traces.traces_block, "Over time"),
    Section("figures", "Figures", figures.pictures_block, "Figures"),
    Section("cases", "Cases", tables.cases_table, "Cases"),
    Section("lost", "Cases without a result", tables.lost_table),
    Section("notebooks", "Notebooks", run_info.notebooks_table, "Notebooks"),
    Section("asked", "What was asked", run_info.params_table),
    Section("machine", "On which machine", run_info.machine_facts, "Machine"),
    Section("method", "Method", run_info.method_block, "Method"),
    Section(
        "reading", "How to read the numbers", lambda run: render("reading.html.j2"), "How to read"
    ),
    Section("files", "Files", files.files_block, "Files"),
)


def build_report(run_dir: Path) -> Path:
    """Write `<run>/index.html`, one page that needs nothing from a network.

    Works on unfinished and damaged runs too: what is missing is named. `RunFolderError` where
    `run_dir` holds no run.
    """
    run = Run(Path(run_dir).absolute())
    return write_page(
        run.folder / "index.html",
        "report.html.j2",
        later=[traces.vega_script()],
        sections=blocks_of(SECTIONS, run),
        run_id=run.name,
        preset=text_of(run.manifest, "preset"),
        preset_words=comment(text_of(run.manifest, "preset")),
        status=badge(text(run.manifest.get("status"), empty="no manifest")),
        cautions=answer.cautions(run),
        answers=[*answer.simulated(run), answer.answer(run)],
        has_verdict=bool(run.verdict),
    )
