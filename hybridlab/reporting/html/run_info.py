"""What a run is made of, and how its numbers were made: notebooks, parameters, machine, method."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd
from markupsafe import Markup

from hybridlab import MEASUREMENT_VERSION
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import LEAST_READINGS, STABLE_HALF_WIDTH
from hybridlab.config.params import NOTEBOOKS
from hybridlab.reporting.html.page import render
from hybridlab.reporting.html.view_model import Run, Table, badge, table
from hybridlab.reporting.labels import (
    EMPTY,
    is_missing,
    n_bytes,
    percent,
    seconds,
    text,
)
from hybridlab.reporting.rows import CONTROL, present
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import counted, format_percent

#: Parameters that say where and how, not what was asked.
OF_THE_RUN = ("output_dir", "headless", "inline")

# ------------------------------------------------------------------------------------- notebooks


def notebooks_table(run: Run) -> Table:
    """Every notebook with its status, and what it left in the run's folder."""
    rows = []
    for name in dict.fromkeys([*NOTEBOOKS, *run.parts]):
        status, reason, took_s = outcome(run, name)
        left = [_file(run, f"notebooks/{name}{suffix}") for suffix in (".html", ".ipynb")]
        rows.append(
            {
                "Notebook": name,
                "Status": badge(status),
                "Reason": reason,
                "Took": seconds(took_s),
                "In the run's folder": ", ".join(filter(None, left)) or EMPTY,
            }
        )
    return table(rows)


def outcome(run: Run, name: str) -> tuple[str, str, Any]:
    """(status, reason, seconds) by the batch's manifest, else by the part's own."""
    batch = run.manifest.get("notebooks", {}).get(name)
    if isinstance(batch, dict):
        status = text(batch.get("status"), empty="unknown")
        return status, text(batch.get("reason"), empty=""), batch.get("seconds")
    if name not in run.parts:
        return "not run", "", None
    part = run.parts[name]
    status = text(part.get("status"), empty="crashed")
    reason = text(part.get("reason"), empty="")
    if status == "running":
        reason = reason or "it has not reached its last cell"
    start, end = (_time(part.get(key)) for key in ("started", "ended"))
    return status, reason, (end - start).total_seconds() if start and end else None


def _time(value: Any) -> datetime | None:
    """A time of a manifest, which may be damaged."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def moment(value: Any) -> str:
    """'2025-01-31 14:05 UTC'."""
    known = _time(value)
    return f"{known:%Y-%m-%d %H:%M} UTC" if known else EMPTY


def _file(run: Run, path: str) -> str:
    """The path where the file is there, else ''; a link would be dead where the page is alone."""
    return path if (run.folder / path).is_file() else ""


# ------------------------------------------------------------------------------------ parameters


def params_table(run: Run) -> Table:
    """Parameters that differ from the notebooks' defaults."""
    defaults = default_params()
    return table(
        [
            {
                "Parameter": name,
                "Here": text(value, empty="(empty)"),
                "Default": text(defaults.get(name), empty="(empty)"),
            }
            for name, value in run.params.items()
            if name not in OF_THE_RUN and value != defaults.get(name)
        ],
        empty="Every parameter has its default.",
    )


def facts_of(run: Run) -> dict[str, str]:
    """The machine's facts and every parameter, to be held against those of another run."""
    asked = default_params() | run.params
    return machine_facts(run) | {
        f"parameter {name}": text(value, empty="(empty)")
        for name, value in asked.items()
        if name not in OF_THE_RUN
    }


def default_params() -> dict[str, Any]:
    """Every notebook's parameters with their defaults."""
    return {
        name: info.default
        for model in NOTEBOOKS.values()
        for name, info in model.model_fields.items()
    }


# --------------------------------------------------------------------------------------- machine


def machine_facts(run: Run) -> dict[str, str]:
    """Processor, device, memory, versions, dates, commit."""
    machine = dict(run.origin("machine") or {})
    processor, system, cores, python = (
        text(machine.pop(name, None)) for name in ("processor", "system", "cores", "python")
    )
    versions = {k: v for k, v in (run.origin("versions") or {}).items() if not is_missing(v)}
    facts = {
        "Device": device_words(run),
        "Processor": f"{processor}, {cores} cores",
        "Host memory": n_bytes(machine.pop("memory_bytes", None)),
        **_monitor_facts(run.cases),
        "System": f"{system}, Python {python}",
        **{name.replace("_", " ").capitalize(): text(item) for name, item in machine.items()},
        "GPU readings": _pairs(run.origin("gpu")),
        "Environment": _pairs(run.origin("environment")),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or EMPTY,
        "Started": moment(run.origin("started")),
        "Ended": moment(run.origin("ended")),
        "Commit": text(run.origin("git_commit")),
        "Measurement version": text(run.origin("measurement_version")),
        "Seed": text(run.origin("seed")),
        "Parameters' hash": text(run.origin("params_hash")),
    }
    return {label: words for label, words in facts.items() if words != EMPTY}


def _pairs(values: Any) -> str:
    """'A=1, B=2'."""
    return ", ".join(f"{name}={value}" for name, value in (values or {}).items()) or EMPTY


def _monitor_facts(cases: pd.DataFrame) -> dict[str, str]:
    """How closely memory was watched, and who else was at work meanwhile."""
    facts = {}
    interval = numbers(cases, "sampler_interval_s").median()
    gap = numbers(cases, "sampler_longest_gap_s").max()
    if not (is_missing(interval) or is_missing(gap)):
        facts["Memory sampled"] = (
            f"every {seconds(interval)}, longest gap {seconds(gap)}: curves may miss a spike "
            "shorter than that, peaks come from the allocator and miss none"
        )
    foreign = numbers(cases, "other_processes_cpu_share").max()
    if not is_missing(foreign):
        spoilt = counted(int((cases["status"] == "invalid").sum()), "case")
        facts["Other processes"] = (
            f"used at most {percent(foreign)} of the processors during a case; {spoilt} invalid "
            "for it"
        )
        slowed = sorted({str(why) for why in present(cases, "throttled")})
        facts["Clocks lowered"] = ", ".join(slowed) or "nothing said so during a case"
    return facts


def device_words(run: Run) -> str:
    """'cuda:0 with 15.60 GiB'."""
    words = ", ".join(sorted({str(name) for name in present(run.cases, "device")})) or EMPTY
    capacities = numbers(run.cases, "capacity_bytes").dropna()
    if len(capacities):
        words += f" with {n_bytes(capacities.max())}"
    if present(run.cases, "memory_limited").astype(bool).any():
        words += ", some cases inside the memory of a smaller card"
    return words


# ---------------------------------------------------------------------------------------- method


def method_block(run: Run) -> Markup:
    """The rules that stand behind the numbers, with this run's own counts."""
    statuses = run.cases["status"].value_counts()
    counts = ", ".join(f"{count} {text(status)}" for status, count in statuses.items())
    return render(
        "method.html.j2",
        asked=default_params() | run.params,
        cases=f"{counted(len(run.cases), 'case')}{': ' + counts if counts else ''}",
        control=CONTROL,
        no_times="" if has_clock(run.cases) else NO_TIMES,
        own_version=MEASUREMENT_VERSION,
        percent=percent,
        least=LEAST_READINGS,
        stable_width=format_percent(STABLE_HALF_WIDTH),
        version=text(run.origin("measurement_version"), empty="unknown"),
    )
