"""03, first half: how do the request's bytes grow with the audio's length and the batch?"""

from __future__ import annotations

from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import LimitsParams
from hybridlab.experiments.lab import Lab


def measure(lab: Lab) -> list[dict[str, Any]]:
    """One case per audio length and per batch size, each in a fresh process."""
    params = cast(LimitsParams, lab.params)
    cases = [_case(lab, "audio_s", seconds) for seconds in params.limit_audio_s]
    cases += [_case(lab, "batch", batch) for batch in params.limit_batches]
    return lab.runner.run_all(cases)


def _case(lab: Lab, kind: str, value: float) -> Any:
    long = kind == "audio_s"
    return lab.case(
        "limits",
        work="limit",
        strategy="solo",
        variant="naive",
        transcriber=None,
        requests=lab.requests(1, max_audio_s=catalog.WINDOW_S),
        options={
            "limit_kind": kind,
            "limit_value": value,
            "audio_s": value if long else 0.0,
            "batch": 1 if long else int(value),
        },
    )
