"""One self-contained page of a run: `build_report(run_dir)` writes `<run>/index.html`."""

from hybridlab.report.build import build_report

__all__ = ["build_report"]
