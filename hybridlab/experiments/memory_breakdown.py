"""The ledger of a case: every byte of the device by owner at each moment, beside the prediction.

Rows of a moment with `in_process` sum to the bytes that the case used then; with the others they
sum to the device's capacity. What no owner claims is a row of its own, `unattributed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hybridlab import catalog, planner
from hybridlab.devices import MemoryOwners
from hybridlab.experiments.case_context import CaseContext
from hybridlab.profiling.attribution import PeakTracker
from hybridlab.profiling.memory_profiler import Ended, Region
from hybridlab.results.schema import AT_ONCE
from hybridlab.strategies import Strategy


def write_ledgers(context: CaseContext, strategy: Strategy) -> None:
    """Rows at the peak while loading, when idle, at the peak while serving, and in each phase."""
    ledger = _Ledger(context, strategy, predictions(context))
    regions = context.meter.regions
    loads = [region for region in regions if region.name == "load"]
    if loads:
        loaded = max(loads, key=lambda region: region.peak_bytes)
        owners = {**context.loaded_owners, "loading": loaded.peak_bytes - loaded.ended.used_bytes}
        ledger.write("load_peak", loaded.peak_bytes, owners, now=loaded.peak_account)
    ledger.write_idle()
    served = _largest_request(regions)
    if served is not None:
        ledger.write_request(served)
    for region in regions:
        if region.at_once is not None:
            ledger.write_at_once(region, region.at_once)
    context.result["predicted_bytes"] = ledger.predicted_total()


def _largest_request(regions: list[Region]) -> Region | None:
    """The request whose phases were taken apart, else the one with the highest peak."""
    served = [region for region in regions if region.name == "request" and region.at_once is None]
    traced = [region for region in served if region.phases]
    return max(traced or served, key=lambda region: region.peak_bytes, default=None)


@dataclass(frozen=True)
class _Ledger:
    context: CaseContext
    strategy: Strategy
    predicted: Mapping[str, Any]

    @cached_property
    def held(self) -> dict[str, int]:
        """What models and strategy hold now, counted once: that walks through all parameters."""
        return self.strategy.bytes_by_owner(self.strategy.models)

    def write(
        self,
        moment: str,
        used_bytes: int,
        owners: Mapping[str, int],
        *,
        now: MemoryOwners,
        predicted: Mapping[str, int | None] | None = None,
    ) -> None:
        """The rows of a moment; `predicted` adds to what is predicted of every moment."""
        meter, known = self.context.meter, {**self.predicted, **(predicted or {})}
        inside = {"process": meter.process_baseline_bytes, **owners}
        for owner, n_bytes in now.in_process.items():
            inside[owner] = max(0, n_bytes - meter.base_account.in_process.get(owner, 0))
        inside["unattributed"] = used_bytes - sum(inside.values())
        free_bytes = now.free_bytes(
            capacity_bytes=self.context.device.capacity_bytes(), used_bytes=used_bytes
        )
        for side, rows in ((True, inside), (False, {**now.external, "free": free_bytes})):
            for owner, n_bytes in rows.items():
                row = {"moment": moment, "owner": owner, "bytes": n_bytes, "in_process": side}
                self.context.writer.append("ledgers", {**row, "predicted_bytes": known.get(owner)})

    def write_idle(self) -> None:
        """`retained` is what the requests have left, beside what came in with them by name."""
        idle, owners = self.context.meter.idle, self.context.idle_owners
        if idle is None:
            return
        came = sum(owners.values()) - sum(self.context.loaded_owners.values())
        kept = max(0, self._grown(Ended(idle.used_bytes, 0, idle.account)) - came)
        self.write("idle", idle.used_bytes, {**owners, "retained": kept}, now=idle.account)

    def write_request(self, served: Region) -> None:
        """Its peak, and that of each of its phases."""
        phases, predicted = served.phases, self.predicted["phases"]
        top = max(phases, key=lambda name: phases[name].peak_bytes, default="")
        self._write_phase(served, top, "request_peak", served.peak_bytes, max(predicted.values()))
        for name, phase in phases.items():
            if name:
                self._write_phase(served, name, name, phase.peak_bytes, predicted.get(name))

    def _write_phase(
        self, served: Region, name: str, moment: str, peak_bytes: int, predicted: int | None
    ) -> None:
        """A phase's peak by owner. What is not a tensor and not the device's to name is `retained`
        where it stays when the phase has ended (code that kernels compiled, thread arenas, caches),
        and `request buffers` where it goes (arrays, what a library copies).
        """
        phase = served.phases.get(name)  # None: phases were not followed
        end = (phase or served).ended
        kept = self._kept(served, end)
        owners = {**self.held, "retained": kept}
        if phase and phase.live_bytes is not None:
            owners["request"] = phase.live_bytes
            gone = peak_bytes - end.used_bytes + (end.live_bytes or 0)
            owners["request buffers"] = max(0, gone - phase.live_bytes)
        else:  # not traced: what came above the loaded pair and went again
            grown = self._named_growth(end)
            owners["request"] = max(0, peak_bytes - self.context.loaded.used_bytes - grown - kept)
        now = (phase or served).peak_account
        self.write(moment, peak_bytes, owners, now=now, predicted={"request": predicted})

    def write_at_once(self, served: Region, tracker: PeakTracker) -> None:
        """Both models at work: each one's share of the moment when they held most together."""
        owners = {
            **self.held,
            "retained": self._kept(served, served.ended),
            **{f"{role} request": n_bytes for role, n_bytes in tracker.at_peak.items()},
        }
        phases = self.predicted["phases"]
        most = {
            f"{role} request": max(
                (size for phase, size in phases.items() if phase.startswith(role)), default=None
            )
            for role in tracker.at_peak
        }
        self.write(AT_ONCE, served.peak_bytes, owners, now=served.peak_account, predicted=most)

    def _named_growth(self, end: Ended) -> int:
        """Growth since loading of what the device itself can name (libraries, free heap)."""
        rest = self.context.loaded.account.in_process
        found = end.account.in_process
        return sum(n_bytes - rest.get(owner, 0) for owner, n_bytes in found.items())

    def _kept(self, served: Region, end: Ended) -> int:
        """What has come by now and stays. Where tensors of the request cannot be told from it, it
        is no more than what there is now, and than what is there when the request has ended."""
        kept = self._grown(end)
        if end.live_bytes is None:
            kept = min(kept, self._grown(served.ended))
        return max(0, kept)

    def _grown(self, end: Ended) -> int:
        grown = end.used_bytes - (end.live_bytes or 0) - self.context.loaded.used_bytes
        return grown - self._named_growth(end)

    def predicted_total(self) -> int:
        """The process as it began, and the planner's weights and largest phase."""
        weights = sum(self.predicted.get(f"{role} weights", 0) for role in ("llm", "asr"))
        largest = max(self.predicted["phases"].values())
        return int(self.context.meter.process_baseline_bytes + weights + largest)


def _longest_request(context: CaseContext) -> planner.Request:
    return context.case.predicted_request(max(spec.audio_s for spec in context.case.requests))


def predictions(context: CaseContext) -> dict[str, Any]:
    """What the planner says of each owner, for the longest clip of this case; `phases` by phase."""
    case, request = context.case, _longest_request(context)
    card, llm = case.card_on(context.device), case.llm
    voxtral = catalog.voxtral(llm.model)
    found: dict[str, Any] = {"llm weights": planner.voxtral_weights_bytes(voxtral, dtype=llm.dtype)}
    found["loading"] = 0
    sizes = planner.voxtral_phases(
        voxtral, request, dtype=llm.dtype, card=card, attention=llm.attention
    )
    phases = {f"llm {phase}": size.expected for phase, size in sizes.items()}
    if case.asr is not None and catalog.variant(case.strategy, case.variant).shares_device:
        whisper = catalog.whisper(case.asr.model)
        kept: dict[str, Any] = {"backend": case.asr.backend, "dtype": case.asr.dtype}
        found["asr weights"] = planner.whisper_weights_bytes(whisper, **kept)
        sizes = planner.whisper_phases(whisper, request, **kept, card=card)
        phases |= {f"asr {phase}": size.expected for phase, size in sizes.items()}
        phases["asr prefill"] = phases["asr decode"]  # the planner tells them not apart
        if not context.device.is_host:  # the second copy is made on the device alone
            peak = planner.whisper_load_peak_bytes(whisper, **kept, path=case.asr.load_path)
            found["loading"] = peak - found["asr weights"]
    waiting = {f"{role} host copy": found.get(f"{role} weights") for role in ("llm", "asr")}
    return {**found, **waiting, "phases": phases}
