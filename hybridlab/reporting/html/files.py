"""The run's tables to download: inside the page as CSV, and beside it as Parquet.

Links to files beside the page would be dead in a mail attachment: those are named, not linked.
"""

from __future__ import annotations

import base64
import gzip

import pandas as pd
from markupsafe import Markup

from hybridlab.reporting.html.page import Block
from hybridlab.reporting.html.view_model import Run, Table, link, table
from hybridlab.reporting.labels import EMPTY, n_bytes

#: Characters of all tables inside the page; the smallest go in first.
BUDGET_CHARACTERS = 900_000
NOTE = Markup(
    "<p>The files inside this page are the run's tables as compressed CSV: they can be saved from "
    "a mail attachment too.</p>"
)


def files_block(run: Run) -> Block:
    """What can be saved, and from where."""
    return [NOTE, files_table(run)]


def files_table(run: Run, *, budget: int = BUDGET_CHARACTERS) -> Table:
    """Every table as a file inside the page, as far as the budget goes, and beside it."""
    packed = {name: compressed_csv(rows) for name, rows in run.tables.items() if len(rows)}
    inside = set()
    for name in sorted(packed, key=lambda name: len(packed[name])):
        budget -= len(packed[name]) * 4 // 3
        if budget < 0:
            break
        inside.add(name)
    found = []
    for name, content in packed.items():
        row = {"What": name, "Rows": f"{len(run.tables[name]):,}", "Size": EMPTY}
        row["Inside this page"] = "too large for a page that is mailed"
        if name in inside:
            row |= _inside(run, f"{name}.csv.gz", content, "application/gzip")
        found.append(row | {"In the run's folder": _beside(run, f"{name}.parquet")})
    for name in ("manifest.json", "verdict.json"):
        if (run.folder / name).is_file():
            row = _inside(run, name, (run.folder / name).read_bytes(), "application/json")
            found.append({"What": name, **row, "In the run's folder": _beside(run, name)})
    return table(found, empty="There are no tables: no case was started.")


def _inside(run: Run, name: str, content: bytes, kind: str) -> dict[str, str]:
    saved = link(name, data_uri(kind, content), save_as=f"{run.name}-{name}")
    return {"Inside this page": saved, "Size": n_bytes(len(content))}


def _beside(run: Run, name: str) -> str:
    return name if (run.folder / name).is_file() else EMPTY


def compressed_csv(rows: pd.DataFrame) -> bytes:
    """All rows and columns as CSV in gzip; the same rows give the same bytes."""
    return gzip.compress(rows.to_csv(index=False).encode(), 9, mtime=0)


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as an address that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
