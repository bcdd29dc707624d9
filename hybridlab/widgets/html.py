"""What the views share: an output as wide as its cell, lines as narrow as the page's, and tables
that scroll rather than spill."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hybridlab.reporting.tables.shown import cells_html


def output() -> Any:
    """An HTML widget that wraps its text where the notebook's cell ends."""
    import ipywidgets as widgets

    return widgets.HTML(layout={"width": "100%"})


def framed(*parts: str) -> str:
    """A view's parts in lines as narrow as the page's own."""
    return f'<div style="line-height:1.4">{"".join(parts)}</div>'


def table(rows: Iterable[dict[str, str]]) -> str:
    """A table of cells that are HTML already."""
    listed = list(rows)
    return cells_html(list(listed[0]), [list(row.values()) for row in listed])
