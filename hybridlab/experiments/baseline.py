"""01: what does Voxtral itself take, and where does each byte go?"""

from __future__ import annotations

from typing import Any

from hybridlab.experiments.lab import Lab


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Voxtral alone, doing both jobs on every request."""
    case = lab.case("baseline", strategy="solo", variant="naive", transcriber=None, phases=True)
    return lab.runner.run_all([case])
