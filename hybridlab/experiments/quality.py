"""02, last part: how good is the text of each Whisper, and of Voxtral, for the memory it takes?"""

from __future__ import annotations

from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import BesideParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.lab import Lab

NO_TEXT = "random weights say nothing that could be right or wrong"


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Every clip of the manifest transcribed by Voxtral and by each of `quality_sizes`, one tenant
    alone in each case."""
    params = cast(BesideParams, lab.params)
    if not params.quality_sizes:
        return []
    cases = [_case(lab, "voxtral", {"transcriber": None})]
    cases += [_case(lab, "whisper", {"transcriber": _spec(lab, s)}) for s in params.quality_sizes]
    lab.runner.total += len(cases)
    rows = []
    for case in cases:
        spec = case.transcriber or case.analyst
        rows.append(lab.runner.run(case) if spec.has_text else lab.runner.skip(case, NO_TEXT))
    return rows


def _spec(lab: Lab, size: str) -> Any:
    params = cast(BesideParams, lab.params)
    weights = "pocket" if size in catalog.POCKET_SIZES else params.sizes_weights
    return lab.whisper_spec(
        size, backend=params.sizes_backend, weights=weights, dtype=params.sizes_dtype
    )


def _case(lab: Lab, tenant: str, fields: dict[str, Any]) -> Case:
    return lab.case(
        "quality",
        work="alone",
        strategy="alone",
        variant=tenant,
        warmup=0,
        requests=lab.requests(len(lab.clips)),
        options={"only": tenant, "answers": False},
        **fields,
    )
