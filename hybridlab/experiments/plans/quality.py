"""02, last part: how good is the text of each Whisper, and of Voxtral, for the memory it takes?"""

from __future__ import annotations

from typing import Any, cast

from hybridlab.config.params import BesideParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.plans.co_residency import sized
from hybridlab.experiments.session import Session
from hybridlab.models.base import ModelSpec

NO_TEXT = "random weights say nothing that could be right or wrong"


def measure(session: Session) -> list[dict[str, Any]]:
    """Every clip of the manifest transcribed by Voxtral and by each of `quality_models`, one model
    alone in each case."""
    params = cast(BesideParams, session.params)
    if not params.quality_models:
        return []
    cases = [_case(session, "llm", None)]
    cases += [_case(session, "asr", sized(session, params, s)) for s in params.quality_models]
    return session.runner.run_all(
        cases, lambda case: "" if (case.asr or case.llm).has_text else NO_TEXT
    )


def _case(session: Session, role: str, asr: ModelSpec | None) -> Case:
    return session.case(
        "quality",
        work="reference",
        strategy="reference",
        variant=role,
        asr=asr,
        warmup=0,
        requests=session.requests(len(session.clips)),
        options={"only": role, "answers": False},
    )
