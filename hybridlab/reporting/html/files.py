"""The run's tables to download: inside the page as CSV, and beside it as Parquet.

Links to files beside the page are dead in a mail attachment; what is inside the page is not.
"""

from __future__ import annotations

import base64
import gzip

import pandas as pd

from hybridlab.reporting.html.view_model import Run, Table, link, table
from hybridlab.reporting.labels import EMPTY, n_bytes

#: Characters of all tables inside the page; the smallest go in first.
BUDGET_CHARACTERS = 900_000


def files_table(run: Run, *, budget: int = BUDGET_CHARACTERS) -> Table:
    """Every table as a file inside the page, as far as the budget goes, and beside it."""
    inside = embedded_tables(run, budget=budget)
    found = []
    for name, rows in run.tables.items():
        if len(rows):
            row = {"What": name, "Rows": f"{len(rows):,}"}
            row["Inside this page"] = "too large for a page that is mailed"
            row |= _inside(run, f"{name}.csv.gz", inside.get(name), "application/gzip")
            found.append(row | {"Beside it": _beside(run, f"{name}.parquet")})
    for name in ("manifest.json", "verdict.json"):
        if (run.folder / name).is_file():
            content = (run.folder / name).read_bytes()
            row = {"What": name, "Rows": EMPTY}
            row |= _inside(run, name, content, "application/json")
            found.append(row | {"Beside it": _beside(run, name)})
    return table(found, empty="There are no tables: no case was started.")


def _inside(run: Run, name: str, content: bytes | None, kind: str) -> dict[str, str]:
    if content is None:
        return {"Size": EMPTY}
    saved = link(name, data_uri(kind, content), save_as=f"{run.name}-{name}")
    return {"Inside this page": saved, "Size": n_bytes(len(content))}


def _beside(run: Run, name: str) -> str:
    return link(name, name) if (run.folder / name).is_file() else EMPTY


def embedded_tables(run: Run, *, budget: int) -> dict[str, bytes]:
    """Tables as compressed CSV, the smallest first, until the budget of characters is spent."""
    packed = {name: compressed_csv(rows) for name, rows in run.tables.items() if len(rows)}
    found, spent = {}, 0
    for name in sorted(packed, key=lambda name: len(packed[name])):
        spent += len(packed[name]) * 4 // 3
        if spent > budget:
            break
        found[name] = packed[name]
    return found


def compressed_csv(rows: pd.DataFrame) -> bytes:
    """All rows and columns as CSV in gzip; the same rows give the same bytes."""
    return gzip.compress(rows.to_csv(index=False).encode(), 9, mtime=0)


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as an address that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
