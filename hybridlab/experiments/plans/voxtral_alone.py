"""01: what does Voxtral itself take, and where does each byte go?"""

from __future__ import annotations

from typing import Any

from hybridlab.experiments.session import Session


def measure(session: Session) -> list[dict[str, Any]]:
    """Voxtral alone, doing both jobs on every request."""
    case = session.case("baseline", strategy="solo", variant="two-requests", phases=True)
    return session.runner.run_all([case])
