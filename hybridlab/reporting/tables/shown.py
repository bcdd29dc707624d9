"""How a notebook shows a table: words to the left, figures to the right in three digits, nothing
cut, and no index that only counts rows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import pandas as pd

from hybridlab.reporting.labels import EMPTY, number, text

#: Of a table with more rows the number is shown, and the rows on request.
OPEN_ROWS = 30
#: A longer table than a reader scrolls through is left to pandas, which shows its ends.
MOST_ROWS = 300
_CELL = "text-align:left;vertical-align:top;white-space:normal;max-width:36em;padding:3px 8px"
_FIGURE = "text-align:right;vertical-align:top;white-space:nowrap;padding:3px 8px"
#: '−0.3 %', '12 of 12', '0.41 (0.39–0.44)'; a figure with its interval is not longer than so.
_FIGURES = re.compile(r"[−+×-]?\s?\d[\d.,]*(\s|%|–|x|×|$)")
_LONGEST_FIGURE = 24


def use_in_notebook() -> None:
    """Show every frame of this kernel by `table_html`; outside a kernel nothing happens."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, table_html)


def table_html(frame: pd.DataFrame) -> str | None:
    """A frame as HTML; None, which leaves it to pandas, for one of very many rows."""
    if len(frame) > MOST_ROWS or frame.columns.nlevels > 1:
        return None
    if frame.empty:
        return "<p>There are no rows.</p>"
    counted = frame.index.name is None and pd.api.types.is_integer_dtype(frame.index)
    rows = frame if counted else frame.rename_axis(str(frame.index.name or "")).reset_index()
    columns = [[cell(value) for value in rows.iloc[:, place]] for place in range(rows.shape[1])]
    body = [[escape(words) for words in row] for row in zip(*columns, strict=True)]
    table = cells_html([escape(str(name)) for name in rows.columns], body)
    if len(frame) <= OPEN_ROWS:
        return table
    return f"<details><summary>{len(frame)} rows</summary>{table}</details>"


def cells_html(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    styles = [_FIGURE if is_figures(own) else _CELL for own in zip(*rows, strict=True)]
    body = "".join(f"<tr>{_row('td', row, styles)}</tr>" for row in rows)
    return (
        '<div style="overflow-x:auto"><table style="table-layout:auto"><thead>'
        f"<tr>{_row('th', heads, styles)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(value: Any) -> str:
    """A value as a reader sees it; a float has three digits."""
    return number(value) if isinstance(value, float) else text(value)


def is_figures(cells: Iterable[str]) -> bool:
    """Whether a column holds figures: they are compared by their last digits."""
    known = [own for own in cells if own != EMPTY]
    return bool(known) and all(_FIGURES.match(own) and len(own) < _LONGEST_FIGURE for own in known)


def _row(name: str, cells: Sequence[str], styles: Sequence[str]) -> str:
    pairs = zip(cells, styles, strict=True)
    return "".join(f'<{name} style="{style}">{html}</{name}>' for html, style in pairs)
