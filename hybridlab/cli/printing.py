"""How commands print: rich on a terminal; plain text with fixed columns anywhere else."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: Columns where nobody says how wide the page is.
PLAIN_WIDTH = 80
#: The least that a wrapped last column keeps.
LEAST_COLUMN = 24

Row = tuple[str, ...]


def on_terminal() -> bool:
    """Whether colours and bars can be shown: not in a pipe, not with NO_COLOR, not in a terminal
    that says it is dumb."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def console() -> Console:
    """The terminal as rich sees it, without guesses at what is a number, a path or a tag."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def styled(text: str, style: str) -> Text:
    """A cell in this style."""
    from rich.text import Text

    return Text(text, style)


def rich_table(columns: Sequence[str], *, right: Sequence[str] = ()) -> Table:
    """An empty table without lines around its cells."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left")
    return table


def page_width() -> int:
    """Columns of the page: COLUMNS, the terminal's own, or 80."""
    return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns


def print_paragraph(text: str, *, indent: int = 0) -> None:
    """Plain text, broken at the page's width; what goes on in a new line begins at `indent`."""
    typer.echo(textwrap.fill(text, page_width(), subsequent_indent=" " * indent))


def print_table(header: Row, rows: Sequence[Row], *, left: int, gap: int = 2) -> None:
    """Columns as wide as they must be, the first `left` and the last flush left, others right; a
    last column that the page has no room for goes on under itself."""
    typer.echo("\n".join(table_lines([header, *rows], left=left, gap=gap, width=page_width())))


def table_lines(rows: Sequence[Row], *, left: int, gap: int, width: int) -> list[str]:
    """The lines of a plain table."""
    last = len(rows[0]) - 1
    widths = [max(len(row[i]) for row in rows) for i in range(last)]
    before = sum(widths) + gap * last
    room = max(LEAST_COLUMN, width - before)
    lines = []
    for row in rows:
        cells = [
            cell.ljust(wide) if i < left else cell.rjust(wide)
            for i, (cell, wide) in enumerate(zip(row[:last], widths, strict=True))
        ]
        begun = (" " * gap).join([*cells, ""])
        first, *more = textwrap.wrap(row[last], room) or [""]
        lines += [(begun + first).rstrip(), *(" " * before + text for text in more)]
    return lines
