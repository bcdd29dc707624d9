"""03, second part: where are the limits? Bisection, least headroom and fallback, with real
failures."""

from __future__ import annotations

from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import LimitsParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.session import Session
from hybridlab.units import GB


def measure(session: Session) -> list[dict[str, Any]]:
    """The largest of each kind of request, the squeeze of each strategy, and the fallback chain."""
    params = cast(LimitsParams, session.params)
    cases = [_largest(session, ask) for ask in params.limit_kinds]
    if params.headroom_repeats:
        cases += [_headroom(session, strategy) for strategy in params.headroom_strategies]
    if params.fallback_chain:
        cases.append(_fallback(session))
    return session.runner.run_all(cases)


def _short(session: Session, count: int) -> dict[str, Any]:
    return {"requests": session.requests(count, max_audio_s=catalog.WINDOW_S)}


def _largest(session: Session, ask: str) -> Case:
    params = cast(LimitsParams, session.params)
    most = params.limit_max
    if ask == "audio_s":
        most = min(most, int(catalog.VOXTRAL_MAX_ANSWER_S // catalog.WINDOW_S))
    return session.case(
        "memory_limits",
        work="limit_search",
        warmup=0,
        options={"limit_kind": ask, "most": most},
        **_memory_limit(session, params.limit_memory_gb),
        **_short(session, 1),
    )


def _headroom(session: Session, strategy: str) -> Case:
    params = cast(LimitsParams, session.params)
    return session.case(
        "memory_limits",
        work="headroom",
        strategy=strategy,
        variant=catalog.strategy(strategy).plain.name,
        warmup=1,
        options={"limit_kind": "headroom"},
        **_short(session, params.headroom_repeats),
    )


def _fallback(session: Session) -> Case:
    params = cast(LimitsParams, session.params)
    candidates = tuple(
        session.asr_spec(
            size,
            backend=params.fallback_backend,
            weights=params.fallback_weights,
            dtype="auto",
        )
        for size in params.fallback_chain
    )
    return session.case(
        "memory_limits",
        work="fallback",
        asr=candidates[0],
        candidates=candidates,
        warmup=0,
        **session.fixed_work(params.fallback_new_tokens, candidates[0]),
        options={"limit_kind": "fallback"},
        **_memory_limit(session, params.fallback_memory_gb),
        **_short(session, 3),
    )


def _memory_limit(session: Session, gigabytes: float) -> dict[str, int]:
    """A memory limit of this case's own; without one the run's stays."""
    return {"memory_limit_bytes": int(gigabytes * GB)} if gigabytes else {}
