"""02, last part: how good is the text of each Whisper, and of Voxtral, for the memory it takes?"""

from __future__ import annotations

from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import BesideParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.session import Session

NO_TEXT = "random weights say nothing that could be right or wrong"


def measure(session: Session) -> list[dict[str, Any]]:
    """Every clip of the manifest transcribed by Voxtral and by each of `quality_models`, one tenant
    alone in each case."""
    params = cast(BesideParams, session.params)
    if not params.quality_models:
        return []
    cases = [_case(session, "llm", {"asr": None})]
    cases += [_case(session, "asr", {"asr": _spec(session, s)}) for s in params.quality_models]
    session.runner.total += len(cases)
    rows = []
    for case in cases:
        spec = case.asr or case.llm
        rows.append(
            session.runner.run(case) if spec.has_text else session.runner.skip(case, NO_TEXT)
        )
    return rows


def _spec(session: Session, size: str) -> Any:
    params = cast(BesideParams, session.params)
    weights = "pocket" if size in catalog.POCKET_SIZES else params.sizes_weights
    return session.asr_spec(
        size, backend=params.sizes_backend, weights=weights, dtype=params.sizes_dtype
    )


def _case(session: Session, tenant: str, fields: dict[str, Any]) -> Case:
    return session.case(
        "quality",
        work="reference",
        strategy="reference",
        variant=tenant,
        warmup=0,
        requests=session.requests(len(session.clips)),
        options={"only": tenant, "answers": False},
        **fields,
    )
