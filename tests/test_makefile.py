"""What `make demo` does with the exit codes of the commands that it is made of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

#: In the place of the environment's Python: notes what is asked of it, and ends as is wanted.
PYTHON = """#!/bin/sh
echo "$3 $4" >> "$NOTED"
case "$3 $4" in
    "run params/pocket.yaml") exit "$POCKET" ;;
    "simulate --fetch") exit "$FETCH" ;;
    "run params/t4-simulated.yaml") exit "$T4" ;;
    "report "*) echo "answer and report of $4" ;;
    *) exit 99 ;;
esac
"""
POCKET, FETCH = "run params/pocket.yaml", "simulate --fetch"
T4, REPORT = "run params/t4-simulated.yaml", "report here"
ALL = [POCKET, FETCH, T4, REPORT]


@pytest.mark.parametrize(
    ("pocket", "fetch", "t4", "ends_well", "asked"),
    [
        (0, 0, 0, True, ALL),
        (3, 0, 0, True, ALL),  # other programs made all times invalid
        (0, 0, 3, True, ALL),
        (3, 2, 0, True, [POCKET, FETCH, REPORT]),  # no network: predicted, not simulated
        (1, 0, 0, False, [POCKET]),
        (2, 0, 0, False, [POCKET]),
        (0, 0, 1, False, [POCKET, FETCH, T4]),
        (0, 0, 2, False, [POCKET, FETCH, T4]),
    ],
)
def test_the_demo_goes_on_where_no_time_is_valid_and_fails_where_a_notebook_does(
    project: Path,
    tmp_path: Path,
    pocket: int,
    fetch: int,
    t4: int,
    ends_well: bool,
    asked: list[str],
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / "venv" / ".base").touch()  # newer than what it is installed from
    noted = tmp_path / "noted"
    codes = {"POCKET": pocket, "FETCH": fetch, "T4": t4, "NOTED": noted}
    # as no make under another make
    own = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    unset = {name: value for name, value in os.environ.items() if name not in own}
    ended = subprocess.run(
        ["make", "demo", f"VENV={tmp_path / 'venv'}", "OUTPUT=here"],
        cwd=project,
        env=unset | {name: str(value) for name, value in codes.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode == 0) == ends_well, ended.stderr
    assert noted.read_text().splitlines() == asked
    if ends_well:
        assert ended.stdout.splitlines()[-1] == "answer and report of here"
