"""An older run's tables and manifests by the present names, in place: `hybridlab migrate RUN`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridlab.config.renamed import PARAMETERS, renamed_parameter, renamed_row
from hybridlab.errors import RunFolderError
from hybridlab.results.manifest import write_json
from hybridlab.results.schema import SCHEMA_VERSION, TABLES
from hybridlab.results.writer import replace


def migrate(run_dir: Path) -> list[Path]:
    """Rewrite what is of an older schema; the files that changed. Nothing else is touched, and a
    run that is of this schema already stays as it is."""
    if not run_dir.is_dir():
        raise RunFolderError(f"{run_dir} does not exist")
    changed = []
    for manifest in _manifests(run_dir):
        told = json.loads(manifest.read_text(encoding="utf-8"))
        if told.get("schema_version") == SCHEMA_VERSION:
            continue
        for path in _tables(manifest.parent):
            _rewrite(path)
            changed.append(path)
        write_json(manifest, _manifest(told))
        changed.append(manifest)
    return changed


def _manifests(run_dir: Path) -> Iterator[Path]:
    """The run's own last: a run that is cut short here is begun again whole. Of a folder that is
    no run, runs below it are left alone."""
    if not ((run_dir / "manifest.json").is_file() or (run_dir / "parts").is_dir()):
        raise RunFolderError(f"{run_dir} does not hold a run (no manifest.json in it)")
    yield from sorted(run_dir.rglob("manifest.json"), key=lambda path: -len(path.parts))


def _tables(folder: Path) -> Iterator[Path]:
    for table in TABLES:
        for suffix in ("jsonl", "parquet"):
            path = folder / f"{table}.{suffix}"
            if path.is_file():
                yield path


def _rewrite(path: Path) -> None:
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        fresh = "".join(f"{json.dumps(_row(path.stem, json.loads(line)))}\n" for line in lines)
        replace(path, fresh.encode())
        return
    import pandas as pd

    frame = pd.read_parquet(path)
    rows = [
        _row(path.stem, dict(zip(frame.columns, values, strict=True)))
        for values in frame.itertuples(index=False)
    ]
    empty = list(_row(path.stem, dict.fromkeys(frame.columns)))
    replace(path, pd.DataFrame(rows, columns=None if rows else empty).to_parquet(index=False))


def _row(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Columns that later schemas do not know are left as they are: nothing is lost."""
    fresh = renamed_row(table, row)
    if table == "cases":
        peaks = [fresh.get(f"{stage}_peak_bytes") for stage in ("load", "request")]
        known = [peak for peak in peaks if peak is not None and not math.isnan(peak)]
        fresh["peak_bytes"] = max(known, default=None)
    return fresh


def _manifest(told: dict[str, Any]) -> dict[str, Any]:
    params = {
        PARAMETERS.get(name, name): renamed_parameter(name, value)
        for name, value in told.get("params", {}).items()
    }
    return {**told, "params": params, "schema_version": SCHEMA_VERSION}
