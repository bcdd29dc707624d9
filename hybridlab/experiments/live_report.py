"""The report of notebooks that are run live: built as each one ends, and linked from its last
cell."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from hybridlab.results.reader import part_folders


def show_report(run_dir: Path) -> None:
    """Build the report of a run so far, and show where it is and whose rows it holds."""
    from IPython.display import HTML, display

    from hybridlab.reporting.html import build_report

    names = ", ".join(path.name for path in part_folders(run_dir))
    display(HTML(f"{report_link(build_report(run_dir))}<p>It holds {escape(names)}.</p>"))


def report_link(path: Path) -> str:
    """A link from a notebook beside which the kernel runs, and the path for other programs."""
    href = quote(os.path.relpath(path, Path.cwd()))
    return (
        f'<p>Report: <a href="{href}" target="_blank">{escape(path.parent.name)}/{path.name}</a>'
        f"<br><code>{escape(str(path))}</code></p>"
    )
