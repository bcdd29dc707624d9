"""What `make audit` makes of pip-audit's end: found, clean, or not audited."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hybridlab.audit import CLEAN, CONSTRAINTS, FOUND, NOT_AUDITED, audit

GOOD: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
BAD = GOOD | {"vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
SKIPPED = {"name": "b", "skip_reason": "Dependency not found on PyPI"}


def auditor(tmp_path: Path, packages: list[dict[str, Any]] | None, says: str = "") -> list[str]:
    """A command that reports these packages, or none because it fails."""
    report = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    script = tmp_path / "auditor.py"
    script.write_text(
        "import sys\n"
        f"sys.stderr.write({says!r})\n"
        "at = sys.argv.index('--output') + 1\n"
        f"report = {report!r}\n"
        "if report: open(sys.argv[at], 'w').write(report)\n"
        "sys.exit(1)\n"
    )
    return [sys.executable, str(script)]


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([GOOD, GOOD], CLEAN, "no known vulnerability in 2 pinned packages"),
        ([GOOD, BAD], FOUND, "a 1: PYSEC-1, mended in 2"),
        ([BAD, SKIPPED], FOUND, "PYSEC-1"),
        ([GOOD, SKIPPED], NOT_AUDITED, "does not know 1 of 2 packages (b"),
        (None, NOT_AUDITED, "could not be asked (no name resolved)"),
    ],
)
def test_only_a_whole_audit_without_a_finding_is_clean(
    tmp_path: Path, packages: list[dict[str, Any]] | None, code: int, words: str
) -> None:
    found, lines = audit(CONSTRAINTS, auditor(tmp_path, packages, "Traceback\nno name resolved\n"))
    assert found == code
    assert words in lines[0]
    assert not any("\n" in line for line in lines)
