"""The ledger of a case: every byte of the device by owner at each moment, and the planner's word.

Rows of a moment with `in_process` sum to the bytes that the case used then; with the others they
sum to the device's capacity. What no owner claims is a row of its own, `unattributed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridlab import catalog, planner
from hybridlab.devices import MemoryOwners
from hybridlab.experiments.case_context import CaseContext
from hybridlab.profiling.attribution import PeakTracker
from hybridlab.profiling.memory_profiler import Ended, Region
from hybridlab.results.schema import AT_ONCE
from hybridlab.strategies import Strategy


def write_ledgers(context: CaseContext, strategy: Strategy) -> None:
    """Rows at the peak while loading, at rest, at the peak while serving, and in each phase."""
    meter = context.meter
    # a model that swaps may be in now, but was not before the first request
    weights = strategy.bytes_by_owner(strategy.resident)
    predicted = predictions(context)
    steady = meter.idle_bytes or 0
    loads = [region for region in meter.regions if region.name == "load"]
    if loads:
        loaded = max(loads, key=lambda region: region.peak_bytes)
        owners = {**weights, "loading": loaded.peak_bytes - loaded.end_bytes}
        _write(context, "load_peak", loaded.peak_bytes, owners, predicted, now=loaded.peak_account)
    _write(context, "idle", steady, weights, predicted, now=meter.idle_account)
    served = _largest_request(context)
    if served is not None:
        phases = served.phases
        top = max(phases, key=lambda name: phases[name].peak_bytes, default="")
        whole = {**predicted, "request": max(predicted["phases"].values())}
        _write_phase(context, strategy, served, top, "request_peak", served.peak_bytes, whole)
        for name, phase in phases.items():
            if name:
                said = {**predicted, "request": predicted["phases"].get(name)}
                _write_phase(context, strategy, served, name, name, phase.peak_bytes, said)
    for region in meter.regions:
        if region.at_once is not None:
            _write_at_once(context, strategy, region, region.at_once, predicted)
    context.result["predicted_bytes"] = _predicted_total(context, predicted)


def _write_at_once(
    context: CaseContext,
    strategy: Strategy,
    served: Region,
    tally: PeakTracker,
    predicted: Mapping[str, Any],
) -> None:
    """Both models at work: each one's share of the moment when they held most together."""
    kept = _kept(context, served, _end_of(served))
    owners = {**strategy.bytes_by_owner(strategy.models), "retained": kept}
    owners |= {f"{name} request": n_bytes for name, n_bytes in tally.at_peak.items()}
    most = {
        f"{name} request": max(
            (size for phase, size in predicted["phases"].items() if phase.startswith(name)),
            default=None,
        )
        for name in tally.at_peak
    }
    said = {**predicted, **most}
    _write(context, AT_ONCE, served.peak_bytes, owners, said, now=served.peak_account)


def _largest_request(context: CaseContext) -> Region | None:
    """The request whose phases were taken apart, else the one with the highest peak."""
    served = [
        region
        for region in context.meter.regions
        if region.name == "request" and region.at_once is None
    ]
    traced = [region for region in served if region.phases]
    return max(traced or served, key=lambda region: region.peak_bytes, default=None)


def _write_phase(
    context: CaseContext,
    strategy: Strategy,
    served: Region,
    name: str,
    moment: str,
    peak_bytes: int,
    predicted: Mapping[str, Any],
) -> None:
    """A phase's peak by owner. What is not a tensor and not the device's to name, but stays when
    the phase has ended, is `retained`: code that kernels compiled, thread arenas, caches."""
    phase = served.phases.get(name)  # None: nobody listened
    end = phase.ended if phase else _end_of(served)
    now = (phase or served).peak_account
    kept = _kept(context, served, end)
    owners = {**strategy.bytes_by_owner(strategy.models), "retained": kept}
    if phase and phase.live_bytes is not None:
        owners["request"] = phase.live_bytes + _unseen_bytes(context, strategy, name)
    else:  # not traced: what came above rest and went again
        grown = _named_growth(context, end)
        owners["request"] = max(0, peak_bytes - context.idle_bytes - grown - kept)
    _write(context, moment, peak_bytes, owners, predicted, now=now)


def _named_growth(context: CaseContext, end: Ended) -> int:
    """Growth since rest of the owners that the device itself can name (libraries, free heap)."""
    rest = context.meter.idle_account.in_process
    return sum(n_bytes - rest.get(owner, 0) for owner, n_bytes in end.account.in_process.items())


def _kept(context: CaseContext, served: Region, end: Ended) -> int:
    """What has come by now and stays. Where tensors of the request cannot be told from it, it is no
    more than what there is now, and no more than what is there when the request has ended."""
    kept = _grown(context, end)
    if end.live_bytes is None:
        kept = min(kept, _grown(context, _end_of(served)))
    return max(0, kept)


def _grown(context: CaseContext, end: Ended) -> int:
    grown = end.used_bytes - (end.live_bytes or 0) - context.idle_bytes
    return grown - _named_growth(context, end)


def _end_of(served: Region) -> Ended:
    return Ended(served.end_bytes, 0, served.account)


def _unseen_bytes(context: CaseContext, strategy: Strategy, phase: str) -> int:
    """What a tracer of tensors does not see, derived: the audio as arrays before it is a tensor,
    and the copy that oneDNN makes of a bfloat16 head."""
    if phase == "llm prepare":
        return planner.audio_array_bytes(_longest_request(context))
    if phase == "llm head" and context.case.llm.dtype == "bfloat16":
        module: Any = strategy.llm.module()
        return int(module.lm_head.weight.nbytes)
    return 0


def _longest_request(context: CaseContext) -> planner.Request:
    case = context.case
    return planner.Request(
        audio_s=max(spec.audio_s for spec in case.requests), new_tokens=case.max_new_tokens
    )


def _write(
    context: CaseContext,
    moment: str,
    used_bytes: int,
    owners: Mapping[str, int],
    predicted: Mapping[str, Any],
    *,
    now: MemoryOwners,
) -> None:
    meter = context.meter
    base = meter.base_account
    inside = {"process": meter.process_baseline_bytes, **owners}
    for owner, n_bytes in now.in_process.items():
        inside[owner] = max(0, n_bytes - base.in_process.get(owner, 0))
    inside["unattributed"] = used_bytes - sum(inside.values())
    capacity_bytes = context.device.capacity_bytes()
    free_bytes = now.free_bytes(capacity_bytes=capacity_bytes, used_bytes=used_bytes)
    outside = {**now.external, "free": free_bytes}
    for side, rows in ((True, inside), (False, outside)):
        for owner, n_bytes in rows.items():
            row = {"moment": moment, "owner": owner, "bytes": n_bytes, "in_process": side}
            context.writer.append("ledgers", {**row, "predicted_bytes": predicted.get(owner)})


def predictions(context: CaseContext) -> dict[str, Any]:
    """The planner's word on each owner, for the longest clip of this case; `phases` by phase."""
    case = context.case
    card = case.card_on(context.device) or catalog.HOST
    request = _longest_request(context)
    voxtral = catalog.voxtral(case.llm.model)
    weights = planner.voxtral_weights_bytes(voxtral, dtype=case.llm.dtype)
    found: dict[str, Any] = {"llm weights": weights, "loading": 0}
    phases = {
        f"llm {phase}": size.expected
        for phase, size in planner.voxtral_phases(
            voxtral,
            request,
            dtype=case.llm.dtype,
            card=card,
            attention=case.llm.attention,
        ).items()
    }
    if case.asr is not None and catalog.variant(case.strategy, case.variant).shares_device:
        whisper = catalog.whisper(case.asr.model)
        kept: dict[str, Any] = {
            "backend": case.asr.backend,
            "dtype": case.asr.dtype,
        }
        found["asr weights"] = planner.whisper_weights_bytes(whisper, **kept)
        sizes = planner.whisper_phases(whisper, request, **kept, card=card)
        phases |= {f"asr {phase}": size.expected for phase, size in sizes.items()}
        phases["asr prefill"] = phases["asr decode"]  # the planner tells them not apart
        if context.device.kind == "cuda":  # the second copy is made on the device alone
            peak = planner.whisper_load_peak_bytes(whisper, **kept, path=case.asr.load_path)
            found["loading"] = peak - found["asr weights"]
    waiting = {f"{name} host copy": found.get(f"{name} weights") for name in ("llm", "asr")}
    return {**found, **waiting, "phases": phases}


def _predicted_total(context: CaseContext, predicted: Mapping[str, Any]) -> int:
    """The process as it began, and the planner's weights and largest phase."""
    weights = sum(predicted.get(f"{name} weights", 0) for name in ("llm", "asr"))
    return int(context.meter.process_baseline_bytes + weights + max(predicted["phases"].values()))
