"""The run's tables to download: inside the page as CSV, and beside it as Parquet.

Links to files beside the page are dead in a mail attachment; what is inside the page is not.
"""

from __future__ import annotations

import base64
import gzip

import pandas as pd

from hybridlab.reporting.html.model import EMPTY, Cell, Run, Table, as_bytes, table

#: Characters of all tables inside the page; the smallest go in first.
BUDGET_CHARACTERS = 900_000


def files_table(run: Run, *, budget: int = BUDGET_CHARACTERS) -> Table:
    """Every table as a file inside the page, as far as the budget goes, and beside it."""
    inside = embedded_tables(run, budget=budget)
    rows = [_table_row(run, name, rows, inside) for name, rows in run.tables.items() if len(rows)]
    for name in ("manifest.json", "verdict.json"):
        path = run.folder / name
        if path.is_file():
            size = path.stat().st_size
            uri = _uri("application/json", path.read_bytes())
            link = Cell(name, href=uri, save_as=f"{run.name}-{name}")
            rows.append([name, EMPTY, link, as_bytes(size), Cell(name, href=name)])
    return table(
        ("What", "Rows", "Inside this page", "Size", "Beside it"),
        rows,
        numeric=(1, 3),
        empty="There are no tables: no case was started.",
    )


def _table_row(
    run: Run, name: str, rows: pd.DataFrame, inside: dict[str, bytes]
) -> list[Cell | str]:
    packed, parquet = inside.get(name), run.folder / f"{name}.parquet"
    link: Cell | str = "too large for a page that is mailed"
    if packed is not None:
        uri = _uri("application/gzip", packed)
        link = Cell(f"{name}.csv.gz", href=uri, save_as=f"{run.name}-{name}.csv.gz")
    beside = Cell(parquet.name, href=parquet.name) if parquet.is_file() else EMPTY
    size = EMPTY if packed is None else as_bytes(len(packed))
    return [name, f"{len(rows):,}", link, size, beside]


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


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
