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
from hybridlab.devices.system_info import git_commit, machine, versions
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
    hashes = {str(p.relative_to(base)): hashlib.sha256(p.read_bytes()) for p in artefacts}
    return {
        **_origin(params),
        "run_id": base.name,
        "status": status,
        "started": started,
        "ended": now(),
        "artefacts": {name: digest.hexdigest() for name, digest in hashes.items()},
    }


def origin(params: Params) -> dict[str, Any]:
    """Where a part's rows come from: parameters, machine, versions, commit."""
    return {**_origin(params.model_dump()), "seed": params.seed}


def _origin(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "measurement_version": MEASUREMENT_VERSION,
        "schema_version": SCHEMA_VERSION,
        "params": dict(params),
        "params_hash": params_hash(params),
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
