"""What a run is made of: its notebooks, parameters, machine and files."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd

from hybridlab.config.params import NOTEBOOKS
from hybridlab.reporting.figures import wording
from hybridlab.reporting.html.model import (
    EMPTY,
    Cell,
    Run,
    Table,
    as_bytes,
    as_seconds,
    badge,
    is_missing,
    table,
    words,
)

#: Parameters that say where and how, not what was asked.
OF_THE_RUN = ("output_dir", "headless", "inline")


def notebooks_table(run: Run) -> Table:
    """Every notebook with its status, and links to what it left."""
    rows: list[list[Cell | str]] = []
    for name in dict.fromkeys([*NOTEBOOKS, *run.parts]):
        status, reason, seconds = outcome(run, name)
        rows.append(
            [
                _file(run, f"notebooks/{name}.html", name),
                badge(status),
                reason,
                as_seconds(seconds),
                _file(run, f"notebooks/{name}.ipynb", "notebook"),
            ]
        )
    return table(("Notebook", "Status", "Reason", "Took", "Executed"), rows, numeric=(3,))


def outcome(run: Run, name: str) -> tuple[str, str, Any]:
    """(status, reason, seconds) by the batch's manifest, else by the part's own."""
    batch = run.manifest.get("notebooks", {}).get(name)
    if isinstance(batch, dict):
        status = words(batch.get("status"), empty="unknown")
        return status, words(batch.get("reason"), empty=""), batch.get("seconds")
    if name not in run.parts:
        return "not run", "", None
    part = run.parts[name]
    status = words(part.get("status"), empty="crashed")
    reason = words(part.get("reason"), empty="")
    if status == "running":
        reason = reason or "it has not reached its last cell"
    return status, reason, _seconds_between(part.get("started"), part.get("ended"))


def _seconds_between(start: Any, end: Any) -> float | None:
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (TypeError, ValueError):
        return None


def _file(run: Run, path: str, text: str) -> Cell:
    """A link where the file is there, plain words where it is not."""
    if (run.folder / path).is_file():
        return Cell(text, href=path)
    return Cell(text if text in NOTEBOOKS else EMPTY)


def params_table(run: Run) -> Table:
    """Parameters that differ from the notebooks' defaults."""
    given = run.params
    defaults = default_params()
    rows = [
        (name, words(value, empty="(empty)"), words(defaults.get(name), empty="(empty)"))
        for name, value in given.items()
        if name not in OF_THE_RUN and value != defaults.get(name)
    ]
    return table(
        ("Parameter", "Here", "Default"),
        rows,
        empty="Every parameter has its default.",
    )


def default_params() -> dict[str, Any]:
    """Every notebook's parameters with their defaults."""
    return {
        name: info.default
        for model in NOTEBOOKS.values()
        for name, info in model.model_fields.items()
    }


def machine_facts(run: Run) -> list[tuple[str, str]]:
    """Processor, device, memory, versions, dates, commit."""
    machine = dict(run.origin("machine") or {})
    processor, system = (words(machine.pop(name, None)) for name in ("processor", "system"))
    facts = [
        ("Device", device_words(run)),
        ("Processor", f"{processor}, {words(machine.pop('cores', None))} cores"),
        ("Host memory", as_bytes(machine.pop("memory_bytes", None))),
        *_monitor_facts(run.cases),
        ("System", f"{system}, Python {words(machine.pop('python', None))}"),
    ]
    facts += [(name.replace("_", " ").capitalize(), words(item)) for name, item in machine.items()]
    versions = {k: v for k, v in (run.origin("versions") or {}).items() if not is_missing(v)}
    facts += [
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or EMPTY),
        ("Started", moment(run.origin("started"))),
        ("Ended", moment(run.origin("ended"))),
        ("Commit", words(run.origin("git_commit"))),
        ("Measurement version", words(run.origin("measurement_version"))),
        ("Seed", words(run.origin("seed"))),
        ("Parameters' hash", words(run.origin("params_hash"))),
    ]
    return [(label, text) for label, text in facts if text != EMPTY]


def _monitor_facts(cases: pd.DataFrame) -> list[tuple[str, str]]:
    """How closely memory was watched, and who else was at work meanwhile."""
    facts = []
    interval = wording.numbers(cases, "sampler_interval_s").median()
    gap = wording.numbers(cases, "sampler_longest_gap_s").max()
    if not (is_missing(interval) or is_missing(gap)):
        facts.append(
            (
                "Memory sampled",
                f"every {as_seconds(interval)}, longest gap {as_seconds(gap)}: curves may miss a "
                "spike shorter than that, peaks come from the allocator and miss none",
            )
        )
    foreign = wording.numbers(cases, "foreign_cpu_share").max()
    if not is_missing(foreign):
        spoilt = int((cases["status"] == "invalid").sum())
        facts.append(
            (
                "Other processes",
                f"used at most {wording.percent(foreign)} of the processors during a case; "
                f"{wording.counted(spoilt, 'case')} invalid for it",
            )
        )
        slowed = sorted({str(why) for why in wording.present(cases, "throttled")})
        facts.append(("Clocks lowered", ", ".join(slowed) or "nothing said so during a case"))
    return facts


def device_words(run: Run) -> str:
    names = sorted({str(name) for name in wording.present(run.cases, "device")})
    text = ", ".join(names) or EMPTY
    capacities = wording.numbers(run.cases, "capacity_bytes").dropna()
    if len(capacities):
        text += f" with {as_bytes(float(capacities.max()))}"
    if wording.present(run.cases, "enveloped").astype(bool).any():
        text += ", some cases inside an envelope of a smaller card's memory"
    return text


def moment(text: Any) -> str:
    """'2025-01-31 14:05 UTC'."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError):
        return EMPTY
