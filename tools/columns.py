"""`docs/columns.md`, from the schema of a run's tables: `python -m tools.columns` writes it, a test
checks it."""

from __future__ import annotations

from pathlib import Path

from hybridlab.results.schema import COMMON_COLUMNS, TABLES, Column, Row, columns

PAGE = Path(__file__).resolve().parents[1] / "docs" / "columns.md"
HEAD = """# Columns of a run's tables

Each table is `<run>/<table>.parquet`, written whenever a notebook ends; its rows are appended to
`<run>/parts/<notebook>/<table>.jsonl` as they are observed. An empty value is one that was not
read; a column that ends in `_reason` says why. This page is generated from
`hybridlab/results/schema.py`.
"""


def page() -> str:
    common = [columns("cases")[name] for name in COMMON_COLUMNS]
    parts = [HEAD, "## In every table", _table(common)]
    for name, row in TABLES.items():
        own = [column for column in columns(name).values() if column.name not in COMMON_COLUMNS]
        parts += [f"## `{name}`", _sentence(row), _table(own)]
    return "\n\n".join(parts) + "\n"


def _sentence(row: type[Row]) -> str:
    return " ".join((row.__doc__ or "").split())


def _table(own: list[Column]) -> str:
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for column in own:
        kind = column.kind.replace("|", "or")
        lines.append(f"| `{column.name}` | {kind} | {column.unit} | {column.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
