"""One self-contained page of a run or of a comparison."""

from hybridlab.reporting.html.comparison import build_comparison
from hybridlab.reporting.html.report import build_report

__all__ = ["build_comparison", "build_report"]
