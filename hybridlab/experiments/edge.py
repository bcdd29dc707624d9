"""03, second part: where is the edge? Bisection, the squeeze and the ladder, with real failures."""

from __future__ import annotations

from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import LimitsParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.lab import Lab
from hybridlab.units import GB


def measure(lab: Lab) -> list[dict[str, Any]]:
    """The largest of each kind of request, the squeeze of each strategy, and the ladder."""
    params = cast(LimitsParams, lab.params)
    cases = [_largest(lab, ask) for ask in params.edge_asks]
    if params.squeeze_repeats:
        cases += [_squeeze(lab, strategy) for strategy in params.squeeze_strategies]
    if params.ladder:
        cases.append(_ladder(lab))
    return lab.runner.run_all(cases)


def _short(lab: Lab, count: int) -> dict[str, Any]:
    return {"requests": lab.requests(count, max_audio_s=catalog.WINDOW_S)}


def _largest(lab: Lab, ask: str) -> Case:
    params = cast(LimitsParams, lab.params)
    most = params.edge_most
    if ask == "audio_s":
        most = min(most, int(catalog.VOXTRAL_MAX_ANSWER_S // catalog.WINDOW_S))
    return lab.case(
        "edge",
        work="largest",
        warmup=0,
        options={"ask": ask, "most": most},
        **_envelope(lab, params.edge_envelope_gb),
        **_short(lab, 1),
    )


def _squeeze(lab: Lab, strategy: str) -> Case:
    params = cast(LimitsParams, lab.params)
    variants = {
        "sequential": "plain",
        "parallel": "threads",
        "swapping": "reload-warm",
        "solo": "naive",
    }
    return lab.case(
        "edge",
        work="squeeze",
        strategy=strategy,
        variant=variants[strategy],
        transcriber=None if strategy == "solo" else lab.transcriber,
        warmup=1,
        options={"ask": "squeeze"},
        **_short(lab, params.squeeze_repeats),
    )


def _ladder(lab: Lab) -> Case:
    params = cast(LimitsParams, lab.params)
    rungs = tuple(
        lab.whisper_spec(
            size,
            backend=params.ladder_backend,
            weights="pocket" if size in catalog.POCKET_SIZES else params.ladder_weights,
            dtype="auto",
        )
        for size in params.ladder
    )
    return lab.case(
        "edge",
        work="ladder",
        transcriber=rungs[0],
        rungs=rungs,
        warmup=0,
        max_new_tokens=params.ladder_new_tokens,
        options={"ask": "ladder"},
        **_envelope(lab, params.ladder_envelope_gb),
        **_short(lab, 3),
    )


def _envelope(lab: Lab, gigabytes: float) -> dict[str, int]:
    """An envelope of this case's own; without one the run's stays."""
    return {"envelope_bytes": int(gigabytes * GB)} if gigabytes else {}
