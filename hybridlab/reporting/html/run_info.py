"""What a run is made of, and how its numbers were made: notebooks, parameters, machine, method."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd

from hybridlab import MEASUREMENT_VERSION
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import RESAMPLES, STABLE_HALF_WIDTH, STABLE_LEAST_N
from hybridlab.config.params import NOTEBOOKS
from hybridlab.reporting.html.view_model import Run, Table, badge, link, table
from hybridlab.reporting.labels import (
    EMPTY,
    counted,
    is_missing,
    n_bytes,
    percent,
    seconds,
    text,
)
from hybridlab.reporting.rows import CONTROL, present
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES

#: Parameters that say where and how, not what was asked.
OF_THE_RUN = ("output_dir", "headless", "inline")

# ------------------------------------------------------------------------------------- notebooks


def notebooks_table(run: Run) -> Table:
    """Every notebook with its status, and links to what it left."""
    rows = []
    for name in dict.fromkeys([*NOTEBOOKS, *run.parts]):
        status, reason, took_s = outcome(run, name)
        executed = _file(run, f"notebooks/{name}.ipynb", "notebook")
        rows.append(
            {
                "Notebook": _file(run, f"notebooks/{name}.html", name) or name,
                "Status": badge(status),
                "Reason": reason,
                "Took": seconds(took_s),
                "Executed": executed or EMPTY,
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


def _file(run: Run, path: str, words: str) -> str:
    """A link where the file is there, else ''."""
    return link(words, path) if (run.folder / path).is_file() else ""


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
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or EMPTY,
        "Started": moment(run.origin("started")),
        "Ended": moment(run.origin("ended")),
        "Commit": text(run.origin("git_commit")),
        "Measurement version": text(run.origin("measurement_version")),
        "Seed": text(run.origin("seed")),
        "Parameters' hash": text(run.origin("params_hash")),
    }
    return {label: words for label, words in facts.items() if words != EMPTY}


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


def method_facts(run: Run) -> dict[str, str]:
    """Label and text of each rule that stands behind the numbers, with this run's own counts."""
    asked = default_params() | run.params
    statuses = run.cases["status"].value_counts()
    counts = ", ".join(f"{count} {text(status)}" for status, count in statuses.items())
    inline = (
        " (this run: inside the notebook, as 'inline' asks)" if run.params.get("inline") else ""
    )
    version = text(run.origin("measurement_version"), empty="unknown")
    busy = percent(float(asked["max_other_cpu_share"]))
    return {
        "Measurement version": f"{version} (this program's: {MEASUREMENT_VERSION}); it is raised "
        "whenever a number is made in another way",
        "Cases": f"{counted(len(run.cases), 'case')}{': ' + counts if counts else ''}; each in a "
        f"fresh process{inline}, so that a crash or an error of memory is a result and not an end",
        "Requests": f"{text(asked.get('trials'))} a case after {text(asked.get('warmup'))} to warm "
        f"up, {text(asked.get('rounds'))} rounds; ways that are compared take turns, and the "
        "first request of a case is kept apart",
        "Times": "from synchronised clocks, one row per request; "
        f"'against {CONTROL}' compares within one notebook, since only those took turns"
        if has_clock(run.cases)
        else f"none: {NO_TIMES}",
        "Intervals": f"medians with a percentile bootstrap of 95 %, {RESAMPLES:,} draws with a "
        f"fixed seed; 'stable' is no wider than {STABLE_HALF_WIDTH:.0%} of the median on either "
        f"side, from {STABLE_LEAST_N} requests on",
        "Bytes": "load peak, idle and request peak are the allocator's own on CUDA, and the "
        "resident memory of the case's process on a CPU; the ledger's owners add up to the total, "
        "with the unattributed rest as a row",
        "Invalid": "times are taken again, and then marked invalid, where other processes used "
        f"more than {busy} of the processors or any other one the GPU",
        "Texts": "each model's words under every way of sharing must equal those of the model "
        "alone",
    }
