"""03, third part: what each attention kernel takes for grouped heads, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import LimitsParams
from hybridlab.experiments.session import Session


def measure(session: Session) -> list[dict[str, Any]]:
    """Each kernel on each length of audio, the kernels in turn; one that this device lacks is
    recorded with the reason."""
    params = cast(LimitsParams, session.params)
    cases = [
        session.case(
            "attention",
            work="limit",
            strategy="solo",
            variant="two-requests",
            llm=replace(session.llm, attention=kind),
            requests=session.requests(1, max_audio_s=catalog.WINDOW_S),
            options={"audio_s": seconds, "batch": 1},
        )
        for seconds in params.attention_audio_s
        for kind in params.attention_kinds
    ]
    return session.runner.run_all(cases)
