"""One self-contained page of a run or of a comparison, and either as PDF."""

from hybridlab.reporting.html.build import build_report
from hybridlab.reporting.html.comparison import build_comparison
from hybridlab.reporting.html.pdf import print_pdf

__all__ = ["build_comparison", "build_report", "print_pdf"]
