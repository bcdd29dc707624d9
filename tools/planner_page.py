"""`docs/planner.html`, the planner as a page: `python -m tools.planner_page` writes it, a test
checks it."""

from __future__ import annotations

from pathlib import Path

from hybridlab.reporting.planner_page import planner_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "planner.html"

if __name__ == "__main__":
    PAGE.write_text(planner_page(), encoding="utf-8")
