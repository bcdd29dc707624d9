"""A page as PDF, printed by a browser of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hybridlab.errors import UnavailableError

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
#: Seconds that a browser may take to print a page of 5 MB.
PRINT_S = 180.0


def print_pdf(page: Path) -> Path:
    """Print an HTML page to `<page>.pdf` beside it. `UnavailableError` without a browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UnavailableError(
            "no browser here to print the PDF; install one (apt-get install chromium), or open "
            f"{page} and print it"
        )
    path = page.with_suffix(".pdf")
    path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless=new",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=8000",  # the traces are drawn before the page is printed
            f"--print-to-pdf={path}",
            page.absolute().as_uri(),
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium refuses to run as root with it
        _run(command)
    if not path.is_file():
        raise UnavailableError(f"{browser} printed nothing; open {page} and print it")
    return path


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, timeout=PRINT_S, check=False)
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"{command[0]} did not print within {PRINT_S:.0f} s; open the page and print it"
        ) from None
