"""What the views share: an output as wide as its cell, and tables that scroll rather than spill."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_CELL = "padding:2px 8px;text-align:left;vertical-align:top;line-height:1.4"


def output() -> Any:
    """An HTML widget that wraps its text where the notebook's cell ends."""
    import ipywidgets as widgets

    return widgets.HTML(layout={"width": "100%"})


def framed(*parts: str) -> str:
    """A view's parts in lines as narrow as the page's own."""
    return f'<div style="line-height:1.4">{"".join(parts)}</div>'


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already."""
    names = "".join(f'<th scope="col" style="{_CELL}">{name}</th>' for name in header)
    lines = ("".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse"><thead><tr>'
        f"{names}</tr></thead><tbody>{body}</tbody></table></div>"
    )
