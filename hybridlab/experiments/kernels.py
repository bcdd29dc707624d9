"""03, third part: what each attention kernel takes for grouped heads, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import LimitsParams
from hybridlab.experiments.lab import Lab


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Each kernel on each length of audio, the kernels in turn; one that this device lacks is
    recorded with the reason."""
    params = cast(LimitsParams, lab.params)
    cases = [
        lab.case(
            "attention",
            work="limit",
            strategy="solo",
            variant="naive",
            transcriber=None,
            analyst=replace(lab.analyst, attention=kind),
            requests=lab.requests(1, max_audio_s=catalog.WINDOW_S),
            options={"audio_s": seconds, "batch": 1},
        )
        for seconds in params.attention_audio_s
        for kind in params.attention_kinds
    ]
    return lab.runner.run_all(cases)
