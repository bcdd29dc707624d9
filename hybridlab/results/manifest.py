"""Manifests: what a run or a part of it was, on which machine, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hybridlab import MEASUREMENT_VERSION
from hybridlab.config.params import Params
from hybridlab.devices.system_info import git_commit, machine, settings, versions
from hybridlab.results.reader import read_object
from hybridlab.results.schema import SCHEMA_VERSION
from hybridlab.results.writer import plain, replace

Status = Literal["running", "completed", "skipped", "failed", "crashed"]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """In one step: never half a manifest."""
    replace(path, (json.dumps(plain(value), indent=2) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`, or an empty mapping where there is none."""
    return read_object(folder / "manifest.json")


def params_hash(values: Mapping[str, Any]) -> str:
    """Twelve hex digits over the resolved parameters."""
    text = json.dumps(plain(values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_manifest(
    *, params: Mapping[str, Any], started: str, status: Status, artefacts: list[Path], base: Path
) -> dict[str, Any]:
    """The manifest of a whole run; `artefacts` stand in it with their hashes."""
    return {
        **_origin(params),
        **_inputs(base),
        "run_id": base.name,
        "status": status,
        "started": started,
        "ended": now(),
        "artefacts": {str(path.relative_to(base)): sha256_of(path) for path in artefacts},
    }


def sha256_of(path: Path) -> str:
    """Of a whole file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inputs(run_dir: Path) -> dict[str, Any]:
    """What the run's parts say of their card and their clips: of each the first that says it."""
    found: dict[str, Any] = {}
    for path in sorted((run_dir / "parts").glob("*/manifest.json")):
        part = read_manifest(path.parent)
        found = {
            name: part[name] for name in ("gpu", "audio", "audio_left_out") if name in part
        } | found
    return found


def origin(params: Params) -> dict[str, Any]:
    """Where a part's rows come from: parameters, machine, versions, commit."""
    return {**_origin(params.model_dump()), "seed": params.seed}


def _origin(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "params": dict(params),
        "params_hash": params_hash(params),
        **provenance(),
    }


def provenance() -> dict[str, Any]:
    """The code and the machine that figures come from: what every manifest and every benchmark's
    JSON says."""
    return {
        "measurement_version": MEASUREMENT_VERSION,
        "machine": machine(),
        "versions": versions(),
        "environment": settings(),
        "git_commit": git_commit(),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
