"""What tells runs apart before any number: device, versions, commit, parameters."""

from __future__ import annotations

from typing import Any

from hybridlab.reporting.html import about
from hybridlab.reporting.html.model import EMPTY, Run, Table, badge, table, words


def runs_table(runs: dict[str, Run]) -> Table:
    """Each run with its name, device, preset, commit and version of the method."""
    return table(
        ("Run", "Name", "Device", "Preset", "Commit", "Method", "Started", "Status"),
        [
            (
                letter,
                run.name,
                about.device_words(run),
                words(run.manifest.get("preset")),
                words(run.origin("git_commit")),
                words(run.origin("measurement_version")),
                about.moment(run.origin("started")),
                badge(words(run.manifest.get("status"), empty="no manifest")),
            )
            for letter, run in runs.items()
        ],
    )


def differences_table(runs: dict[str, Run]) -> Table:
    """Machine, package versions and parameters that are not the same in every run."""
    told = {letter: _facts(run) for letter, run in runs.items()}
    names = dict.fromkeys(name for facts in told.values() for name in facts)
    rows = [
        (name, *(facts.get(name, EMPTY) for facts in told.values()))
        for name in names
        if len({facts.get(name, EMPTY) for facts in told.values()}) > 1
    ]
    return table(
        ("What", *runs), rows, empty="Machine, versions and parameters are the same in all of them."
    )


def _facts(run: Run) -> dict[str, str]:
    """Everything that a manifest says of a run's surroundings, in words."""
    facts: dict[str, str] = {}
    groups: dict[str, Any] = {
        "machine": run.origin("machine"),
        "version of": run.origin("versions"),
        "parameter": about.default_params() | run.params,
    }
    for group, values in groups.items():
        for name, value in dict(values or {}).items():
            if name not in about.OF_THE_RUN:
                facts[f"{group} {name}"] = words(value, empty="(empty)")
    return facts
