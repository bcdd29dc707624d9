"""How commands print: by rich, in colour on a terminal and as plain text anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def console(*, stderr: bool = False) -> Console:
    """What rich makes of the stream, without guesses at what is a number, a path or a tag. Its
    `color_system` is None in a pipe, in a dumb terminal and with NO_COLOR: only plain text then."""
    from rich.console import Console

    return Console(
        stderr=stderr,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )


def in_colour() -> bool:
    """Whether `console` has colours on stdout; told without importing rich."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def plain_table(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Columns as wide as they must be, for commands that answer before rich would be imported;
    `right` are numbers of columns that are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" ".join(cells).rstrip())
    return "\n".join(lines)


def command(options: Sequence[str], *, width: int) -> str:
    """A line of the shell that may be copied, continued where it would be too wide."""
    lines = ["  hybridlab"]
    for option in options:
        if len(lines[-1]) + 1 + len(option) + len(" \\") > width:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {option}"
    return "\n".join(lines)


def styled(text: str, style: str) -> Text:
    """A cell in this style."""
    from rich.text import Text

    return Text(text, style)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]] = (),
    *,
    right: Sequence[str] = (),
) -> Table:
    """Rows without lines around their cells; where the page is narrow the last column wraps."""
    from rich.table import Table

    made = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_header=any(columns))
    for name in columns:
        last = name == columns[-1]
        made.add_column(name, justify="right" if name in right else "left", no_wrap=not last)
    for row in rows:
        made.add_row(*row)
    return made
