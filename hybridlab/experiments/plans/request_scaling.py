"""03, first half: how do the request's bytes grow with the audio's length and the batch?"""

from __future__ import annotations

from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import LimitsParams
from hybridlab.experiments.session import Session


def measure(session: Session) -> list[dict[str, Any]]:
    """One case per audio length and per batch size, each in a fresh process."""
    params = cast(LimitsParams, session.params)
    cases = [_case(session, "audio_s", seconds) for seconds in params.scaling_audio_s]
    cases += [_case(session, "batch", batch) for batch in params.scaling_batches]
    return session.runner.run_all(cases)


def _case(session: Session, kind: str, value: float) -> Any:
    long = kind == "audio_s"
    return session.case(
        "request_scaling",
        work="limit",
        strategy="solo",
        variant="two-requests",
        requests=session.requests(1, max_audio_s=catalog.WINDOW_S),
        options={
            "scaling_kind": kind,
            "scaling_value": value,
            "audio_s": value if long else 0.0,
            "batch": 1 if long else int(value),
        },
    )
