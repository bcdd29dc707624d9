"""`make audit`: whether a known vulnerability is in the pinned versions. Asks a public service."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
#: pip-audit as it is asked: nothing is resolved or installed, the versions are pinned already.
COMMAND = (sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json")
CLEAN, FOUND, NOT_AUDITED = 0, 1, 2


def audit(constraints: Path, command: Sequence[str] = COMMAND) -> tuple[int, list[str]]:
    """The exit code and the lines to show. pip-audit ends with 1 both where it found something and
    where it reached nobody; only after an audit it writes its report. What was not audited has not
    passed: `NOT_AUDITED` is a failure too."""
    with tempfile.TemporaryDirectory(prefix="hybridlab-audit-") as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [*command, "--requirement", str(constraints), "--output", str(report)],
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists() or not report.read_text(encoding="utf-8").strip():
            return NOT_AUDITED, [f"not audited: {_last_words(done.stderr)}"]
        return _told(json.loads(report.read_text(encoding="utf-8")))


def _told(report: dict[str, list[dict[str, object]]]) -> tuple[int, list[str]]:
    lines: list[str] = []
    skipped = [
        str(package["name"]) for package in report["dependencies"] if "skip_reason" in package
    ]
    for package in report["dependencies"]:
        known = package.get("vulns", [])
        assert isinstance(known, list)
        for one in known:
            mended = ", ".join(one["fix_versions"]) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {one['id']}, mended in {mended}")
    n = len(report["dependencies"])
    if lines:
        return FOUND, [*lines, f"{len(lines)} known vulnerabilities in {n} pinned packages"]
    if skipped:
        return NOT_AUDITED, [
            f"not audited: the vulnerability service does not know {len(skipped)} of {n} packages "
            f"({', '.join(skipped[:3])} …); pip's index may be a mirror: try where pypi.org answers"
        ]
    return CLEAN, [f"no known vulnerability in {n} pinned packages"]


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    why = lines[-1] if lines else "pip-audit said nothing"
    return f"the vulnerability service could not be asked ({why[:200]}); try again with a network"


def main() -> None:
    code, lines = audit(CONSTRAINTS)
    sys.stdout.write("\n".join(lines) + "\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
