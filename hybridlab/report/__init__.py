"""One self-contained page of a run or of a comparison, and either as PDF."""

from hybridlab.report.build import build_report
from hybridlab.report.comparison import build_comparison
from hybridlab.report.pdf import print_pdf

__all__ = ["build_comparison", "build_report", "print_pdf"]
