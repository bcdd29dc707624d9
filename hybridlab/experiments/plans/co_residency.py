"""02: which Whisper sizes fit beside Voxtral, at load, at rest and at work?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

from hybridlab import catalog, planner
from hybridlab.catalog import LoadOrder, LoadPath
from hybridlab.config.params import BesideParams
from hybridlab.devices.cpu import check_host_memory
from hybridlab.errors import UnavailableError
from hybridlab.experiments.case import Case
from hybridlab.experiments.session import Session
from hybridlab.models.base import ModelSpec, resolve_dtype
from hybridlab.units import MIB, format_bytes

#: A process with torch and transformers imported, before any model (measured: 0.4-0.7 GiB).
PROCESS_BYTES = 700 * MIB


def measure(session: Session) -> list[dict[str, Any]]:
    """One case per size that the memory allows; the others are recorded with the reason."""
    params = cast(BesideParams, session.params)
    cases = [_case(session, size) for size in params.asr_models]
    cases += [
        _loading(session, spec, order, path)
        for spec in _loaded_whispers(session, params)
        for order in params.load_orders
        for path in params.load_paths
    ]
    return session.runner.run_all(cases, partial(skip_reason, session))


def _case(session: Session, size: str) -> Case:
    params = cast(BesideParams, session.params)
    asr = sized(session, params, size)
    return session.case(
        "co_residency",
        asr=asr,
        requests=session.requests(1, max_audio_s=catalog.WINDOW_S),
        warmup=0,
        phases=True,
        **session.fixed_work(params.sizes_new_tokens, asr),
    )


def sized(session: Session, params: BesideParams, size: str) -> ModelSpec:
    """A recogniser as `sizes_*` describe it."""
    return session.asr_spec(
        size, backend=params.sizes_backend, weights=params.sizes_weights, dtype=params.sizes_dtype
    )


def _loaded_whispers(session: Session, params: BesideParams) -> list[ModelSpec]:
    """The pair's Whisper in each backend and dtype that its loading is to be measured in."""
    specs = []
    for backend in params.load_backends or [params.asr_backend]:
        auto = resolve_dtype("auto", backend=backend, device=session.device, role="asr")
        for dtype in params.load_dtypes:  # one that the device lacks is a case's reason
            kept = auto if dtype == "auto" else dtype
            specs.append(replace(session.asr, backend=backend, dtype=kept))
    return specs


def _loading(session: Session, spec: ModelSpec, order: LoadOrder, path: LoadPath) -> Case:
    """The pair with this Whisper, loaded in this order and on this path."""
    return session.case(
        "loading",
        llm=replace(session.llm, load_path=path),
        asr=replace(spec, load_path=path),
        load_order=order,
        requests=session.requests(1, max_audio_s=catalog.WINDOW_S),
        warmup=0,
        phases=True,
    )


def planned(session: Session, case: Case) -> planner.PairPlan:
    """What the planner says of this case's pair on this device."""
    assert case.asr is not None
    return planner.plan_pair(
        case.card_on(session.device),
        catalog.whisper(case.asr.model),
        catalog.voxtral(case.llm.model),
        backend=case.asr.backend,
        dtype=case.asr.dtype,
        llm_dtype=case.llm.dtype,
        request=case.predicted_request(),
        capacity_bytes=case.memory_limit_bytes or session.device.capacity_bytes(),
        attention=case.llm.attention,
        load_path=case.llm.load_path,
    )


def skip_reason(session: Session, case: Case) -> str:
    """Why this case cannot be measured here; empty when it can."""
    assert case.asr is not None
    plan = planned(session, case)
    try:
        session.device.check_dtype(case.asr.dtype)
        check_host_memory(
            plan.host_bytes, session.device, fix="load_paths: [direct] stages nothing there"
        )
    except UnavailableError as error:
        return str(error)
    needed = plan.total_bytes + (PROCESS_BYTES if session.device.is_host else 0)
    budget = min(session.budget_bytes, case.memory_limit_bytes or session.budget_bytes)
    if needed <= budget:
        return ""
    return f"needs {format_bytes(needed)} and {format_bytes(budget)} may be used"
