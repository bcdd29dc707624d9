"""From a run folder to its page: page one, and behind it the page's sections by question."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import Markup

from hybridlab.analysis.case_status import invalid_words
from hybridlab.config.preset_files import comment
from hybridlab.reporting.html import (
    answer,
    claims,
    figures,
    files,
    page_one,
    run_info,
    tables,
    traces,
)
from hybridlab.reporting.html.page import Section, blocks_of, render, write_page
from hybridlab.reporting.html.view_model import Run, badge
from hybridlab.reporting.labels import text, text_of
from hybridlab.reporting.planner_page import planner_embed, planner_script


@dataclass(frozen=True)
class Question:
    """A folded part of the page: its id there, the question, and the sections that answer it."""

    name: str
    words: str
    sections: tuple[Section, ...]


def _figures(name: str, *numbers: str) -> Section:
    """The figures of these notebooks; of the reader's own without any."""
    title = f"Figures of {', '.join(numbers)}" if any(numbers) else "Figures of other notebooks"
    return Section(f"figures-{name}", title, partial(figures.pictures_block, numbers=numbers))


#: In the order of the page. Another section is a function of a `Run` and a line here.
QUESTIONS = (
    Question(
        "fits",
        "What fits, and with how much to spare?",
        (
            Section("memory", "Memory: each Whisper beside Voxtral", tables.memory_table),
            Section("options", "Options A, B and C", tables.options_block),
            _figures("fits", "00", "01", "02"),
        ),
    ),
    Question(
        "limits",
        "How long an audio, how many at once, how close to the edge?",
        (
            Section("key", "Key figures", answer.cards_block),
            _figures("limits", "03"),
        ),
    ),
    Question(
        "sharing",
        "How should the two share it?",
        (
            Section("recommendation", "Recommendation", answer.recommendation),
            Section(
                "strategies", "Strategies: how the two share the device", tables.strategies_block
            ),
            Section("traces", "Over time: memory and phases", traces.traces_block),
            _figures("sharing", "04", "05", "06", "07"),
        ),
    ),
    Question(
        "document",
        "What became of the document's claims?",
        (Section("claims", "Claims of the document", claims.claims_table),),
    ),
    Question(
        "evidence",
        "What was measured, where and how?",
        (
            Section("missing", "What this run lacks", answer.missing_block),
            Section("cases", "Cases", tables.cases_table),
            Section("lost", "Cases without a result", tables.lost_table),
            Section("notebooks", "Notebooks", run_info.notebooks_table),
            Section("asked", "What was asked", run_info.params_table),
            Section("machine", "On which machine", run_info.machine_facts),
            Section("method", "Method", run_info.method_block),
            Section("reading", "How to read the numbers", lambda run: render("reading.html.j2")),
            _figures("own", ""),
            Section("files", "Files", files.files_block),
        ),
    ),
)
SECTIONS = tuple(section for question in QUESTIONS for section in question.sections)


def _status(run: Run) -> Markup:
    """How the run ended, and whether its times count."""
    status = text(run.manifest.get("status"), empty="no manifest")
    if status == "completed" and invalid_words(run.cases):
        return badge("completed, some times invalid", "warn")
    return badge(status)


def build_report(run_dir: Path) -> Path:
    """Write `<run>/index.html`, one page that needs no other file and no network.

    Works on unfinished and damaged runs too: what is missing is named. `RunFolderError` where
    `run_dir` holds no run.
    """
    run = Run(Path(run_dir).absolute())
    # what the run lacks is known when all else was read
    late_first = sorted(SECTIONS, key=lambda section: section.name == "missing", reverse=True)
    made = {section.name: block for section, block in blocks_of(late_first, run)}
    questions = [
        (question, [(one, made[one.name]) for one in question.sections if one.name in made])
        for question in QUESTIONS
    ]
    return write_page(
        run.folder / "index.html",
        "report.html.j2",
        later=[traces.vega_script(), planner_script()],
        planner=planner_embed(),
        questions=[(question, found) for question, found in questions if found],
        one=page_one.page_one(run),
        run_id=run.name,
        preset=text_of(run.manifest, "preset"),
        preset_words=comment(text_of(run.manifest, "preset")),
        status=_status(run),
    )
