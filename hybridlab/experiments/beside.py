"""02: which Whisper sizes fit beside Voxtral, at load, at rest and at work?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from hybridlab import catalog, planner
from hybridlab.catalog import LoadOrder, LoadPath
from hybridlab.config.params import BesideParams
from hybridlab.devices.host_room import check_host_room
from hybridlab.errors import UnavailableError
from hybridlab.experiments.case import Case
from hybridlab.experiments.lab import Lab
from hybridlab.models.base import TenantSpec, resolve_dtype
from hybridlab.units import MIB, format_bytes

#: A process with torch and transformers imported, before any model (measured: 0.4-0.7 GiB).
PROCESS_BYTES = 700 * MIB


def measure(lab: Lab) -> list[dict[str, Any]]:
    """One case per size that the memory allows; the others are recorded with the reason."""
    rows = []
    params = cast(BesideParams, lab.params)
    cases = [_case(lab, size) for size in params.whisper_sizes]
    cases += [
        _loading(lab, spec, order, path)
        for spec in _loaded_whispers(lab, params)
        for order in params.load_orders
        for path in params.load_paths
    ]
    lab.runner.total += len(cases)
    for case in cases:
        lack = shortage(lab, case)
        rows.append(lab.runner.skip(case, lack) if lack else lab.runner.run(case))
    return rows


def _case(lab: Lab, size: str) -> Case:
    params = cast(BesideParams, lab.params)
    pocket = size in catalog.POCKET_SIZES
    transcriber = lab.whisper_spec(
        size,
        backend=params.sizes_backend,
        weights="pocket" if pocket else params.sizes_weights,
        dtype=params.sizes_dtype,
    )
    return lab.case(
        "beside",
        transcriber=transcriber,
        requests=lab.requests(1, max_audio_s=catalog.WINDOW_S),
        warmup=0,
        phases=True,
        max_new_tokens=params.max_new_tokens if pocket else params.sizes_new_tokens,
    )


def _loaded_whispers(lab: Lab, params: BesideParams) -> list[TenantSpec]:
    """The pair's Whisper in each backend and dtype that its loading is to be measured in."""
    return [
        replace(lab.transcriber, backend=backend, dtype=_kept(lab, backend, dtype))
        for backend in params.load_backends or [params.whisper_backend]
        for dtype in params.load_dtypes
    ]


def _kept(lab: Lab, backend: str, dtype: str) -> str:
    """The dtype that is asked for, even one that the device lacks: that is a case's reason."""
    if dtype != "auto":
        return dtype
    return resolve_dtype(dtype, backend=backend, device=lab.device, role="transcriber")


def _loading(lab: Lab, spec: TenantSpec, order: LoadOrder, path: LoadPath) -> Case:
    """The pair with this Whisper, loaded in this order and on this path."""
    return lab.case(
        "loading",
        analyst=replace(lab.analyst, load_path=path),
        transcriber=replace(spec, load_path=path),
        load_order=order,
        requests=lab.requests(1, max_audio_s=catalog.WINDOW_S),
        warmup=0,
        phases=True,
    )


def planned(lab: Lab, case: Case) -> planner.PairPlan:
    """What the planner says of this case's pair on this device."""
    assert case.transcriber is not None
    return planner.plan_pair(
        case.card_on(lab.device) or catalog.HOST,
        catalog.whisper(case.transcriber.model),
        catalog.voxtral(case.analyst.model),
        backend=case.transcriber.backend,
        dtype=case.transcriber.dtype,
        voxtral_dtype=case.analyst.dtype,
        request=planner.Request(new_tokens=case.max_new_tokens),
        capacity_bytes=case.envelope_bytes or lab.device.capacity_bytes(),
        attention=case.analyst.attention,
        load_path=case.analyst.load_path,
    )


def shortage(lab: Lab, case: Case) -> str:
    """Why this case cannot be measured here; empty when it can."""
    assert case.transcriber is not None
    plan = planned(lab, case)
    try:
        lab.device.check_dtype(case.transcriber.dtype)
        check_host_room(
            plan.host_bytes, lab.device, mend="load_paths: [direct] stages nothing there"
        )
    except UnavailableError as error:
        return str(error)
    needed = plan.total_bytes + (PROCESS_BYTES if lab.device.kind == "cpu" else 0)
    budget = min(lab.budget_bytes, case.envelope_bytes or lab.budget_bytes)
    if needed <= budget:
        return ""
    return f"needs {format_bytes(needed)} and {format_bytes(budget)} may be used"
