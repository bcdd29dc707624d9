"""A run's report inside a notebook, and as a file to take along."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from hybridlab.config.preset_files import on_colab
from hybridlab.experiments.live_report import report_link

HEIGHT_PX = 900


def inline_report(path: Path) -> Any:
    """The page in a frame of its own: it needs no server and travels inside the notebook."""
    from IPython.display import HTML

    page = escape(path.read_text(encoding="utf-8"), quote=True)
    return HTML(
        f'<div><iframe title="report" srcdoc="{page}" '
        f'style="width:100%;height:{HEIGHT_PX}px;border:1px solid #8888"></iframe></div>'
    )


def download(path: Path) -> Any:
    """On Colab a button that hands the file to the browser; elsewhere where it lies."""
    from IPython.display import HTML

    if not on_colab():
        return HTML(report_link(path))
    import ipywidgets as widgets

    button = widgets.Button(description="download the report", layout={"width": "240px"})
    button.on_click(lambda _: _hand_over(path))
    return button


def _hand_over(path: Path) -> None:
    from google.colab import files  # type: ignore[import-not-found,import-untyped,unused-ignore]

    files.download(str(path))
