"""A page as PDF, printed by a browser of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hybridlab.errors import UnavailableError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge")
#: Seconds that a browser may take to print a page of 5 MB.
PRINT_S = 180.0


def print_pdf(page: Path) -> Path:
    """Print an HTML page to `<page>.pdf` beside it. `UnavailableError` without a browser that does
    so."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UnavailableError(
            "no browser here to print the PDF; install one (apt-get install chromium), or open "
            f"{page} and print it"
        )
    path = page.with_suffix(".pdf")
    path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless=new", "--no-pdf-header-footer"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root with it
        command += [f"--user-data-dir={profile}", f"--print-to-pdf={path}"]
        command += ["--virtual-time-budget=8000", page.absolute().as_uri()]  # traces come first
        with contextlib.suppress(subprocess.TimeoutExpired):  # then there is no file
            subprocess.run(command, capture_output=True, timeout=PRINT_S, check=False)
    if not path.is_file():
        raise UnavailableError(
            f"{browser} printed nothing within {PRINT_S:.0f} s; open {page} and print it"
        )
    return path
