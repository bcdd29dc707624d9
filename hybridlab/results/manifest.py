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
from hybridlab.errors import RunFolderError
from hybridlab.results.schema import SCHEMA_VERSION
from hybridlab.results.writer import plain, replace

Status = Literal["running", "completed", "skipped", "failed", "crashed"]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """In one step: never half a manifest."""
    replace(path, (json.dumps(plain(value), indent=2) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`, or an empty mapping where there is none."""
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise RunFolderError(f"{path} is damaged; delete it and repeat with --resume") from None
    return dict(manifest)


def params_hash(values: Mapping[str, Any]) -> str:
    """Twelve hex digits over the resolved parameters."""
    text = json.dumps(plain(values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_manifest(
    *, params: Mapping[str, Any], started: str, status: Status, artefacts: list[Path], base: Path
) -> dict[str, Any]:
    """The manifest of a whole run."""
    return {
        "measurement_version": MEASUREMENT_VERSION,
        "schema_version": SCHEMA_VERSION,
        "run_id": base.name,
        "status": status,
        "params": dict(params),
        "params_hash": params_hash(params),
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "started": started,
        "ended": now(),
        "artefacts": {str(p.relative_to(base)): file_hash(p) for p in artefacts},
    }


def origin(params: Params) -> dict[str, Any]:
    values = params.model_dump()
    return {
        "measurement_version": MEASUREMENT_VERSION,
        "schema_version": SCHEMA_VERSION,
        "params": values,
        "params_hash": params_hash(values),
        "seed": params.seed,
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
