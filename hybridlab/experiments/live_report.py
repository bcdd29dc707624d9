"""The report of notebooks that are run live: built as each one ends, and linked from its last
cell."""

from __future__ import annotations

import os
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hybridlab.config.preset_files import on_colab
from hybridlab.results.manifest import Status, read_manifest, run_manifest, write_json
from hybridlab.results.reader import part_folders


def show_report(run_dir: Path) -> None:
    """Write the manifest and the report of a run so far, and show where it is and whose rows it
    holds."""
    from IPython.display import HTML, display

    from hybridlab.reporting.html import build_report

    _write_manifest(run_dir)
    names = ", ".join(path.name for path in part_folders(run_dir))
    display(HTML(f"{report_link(build_report(run_dir))}<p>It holds {escape(names)}.</p>"))


def _write_manifest(run_dir: Path) -> None:
    """What `hybridlab run` would say of these notebooks, from what each says of itself."""
    read = {path.name: read_manifest(path) for path in part_folders(run_dir)}
    parts = {name: part for name, part in read.items() if part}
    statuses = {part.get("status") for part in parts.values()}
    unfinished: tuple[Status, ...] = ("running", "failed")
    manifest = run_manifest(
        params={name: value for part in parts.values() for name, value in part["params"].items()},
        started=min(part["started"] for part in parts.values()),
        status=next((status for status in unfinished if status in statuses), "completed"),
        artefacts=[],
        base=run_dir,
    )
    outcomes = {name: _outcome(part) for name, part in parts.items()}
    write_json(run_dir / "manifest.json", {**manifest, "notebooks": outcomes})


def _outcome(part: dict[str, Any]) -> dict[str, Any]:
    started, ended = (datetime.fromisoformat(part[name]) for name in ("started", "ended"))
    told = {name: part[name] for name in ("status", "reason")}
    return {**told, "seconds": (ended - started).total_seconds()}


def report_link(path: Path) -> str:
    """A link from a notebook beside which the kernel runs, and the path for other programs; Colab's
    page opens no file of its machine, so there it is the path alone."""
    if on_colab():
        return f"<p>Report, under Files on the left: <code>{escape(str(path))}</code></p>"
    href = quote(os.path.relpath(path, Path.cwd()))
    return (
        f'<p>Report: <a href="{href}" target="_blank">{escape(path.parent.name)}/{path.name}</a>'
        f"<br><code>{escape(str(path))}</code></p>"
    )
