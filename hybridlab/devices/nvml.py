"""NVML: what only the driver knows of a card. Without it every reading is empty, with a reason.

An index is CUDA's: `cuda:N` of this process. NVML counts all cards of the machine, in an order of
its own, so a card is looked up by its UUID.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hybridlab.devices.base import Reading
from hybridlab.devices.procfs import is_own
from hybridlab.devices.visible import cuda_in_use, visible_gpus
from hybridlab.errors import UnavailableError
from hybridlab.units import MIB

#: Less than any process takes that computes on a card: a context alone is larger.
LEAST_CONTEXT_BYTES = 64 * MIB


@dataclass(frozen=True)
class CardMemory:
    """A whole card's bytes as NVML's v2 memory info has them: they sum to `total_bytes`."""

    total_bytes: int
    reserved_bytes: int
    used_bytes: int
    free_bytes: int


def nvml_memory(index: int = 0) -> CardMemory:
    """The card's memory now, what the driver reserves told apart; `UnavailableError` without
    NVML."""
    import pynvml

    info = _ask(
        index,
        "memory",
        lambda handle: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2),
    )
    return CardMemory(int(info.total), int(info.reserved), int(info.used), int(info.free))


def nvml_used_bytes(index: int = 0) -> Reading:
    """Bytes in use on the whole card without what the driver reserves."""
    try:
        return Reading(float(nvml_memory(index).used_bytes))
    except UnavailableError as error:
        return Reading(None, str(error))


def nvml_facts(index: int = 0) -> dict[str, Any]:
    """Driver, name, temperature and clocks; missing readings carry their reason."""
    import pynvml

    try:
        handle = nvml_handle(index)
    except pynvml.NVMLError as error:
        return {"reason": f"no NVML: {error}"}
    except UnavailableError as error:
        return {"reason": str(error)}
    queries = {
        "driver": pynvml.nvmlSystemGetDriverVersion,
        "name": lambda: pynvml.nvmlDeviceGetName(handle),
        "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(
            handle, pynvml.NVML_TEMPERATURE_GPU
        ),
        "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
    }
    facts: dict[str, Any] = {}
    for name, query in queries.items():
        try:
            facts[name] = query()
        except pynvml.NVMLError as error:
            facts[name] = None
            facts[f"{name}_reason"] = str(error)
    others = nvml_other_processes(index)
    facts["other_processes"] = others.value
    if others.value is None:
        facts["other_processes_reason"] = others.reason
    return facts


def fact_words(facts: dict[str, Any]) -> str:
    """Facts in a line: a missing one with its reason, and one reason where all are missing."""
    if "reason" in facts:
        return f"no readings ({facts['reason']})"
    words = []
    for name, value in facts.items():
        if name.endswith("_reason"):
            continue
        shown = f"unknown ({facts[f'{name}_reason']})" if value is None else value
        words.append(f"{name} {shown}")
    return ", ".join(words)


def nvml_other_processes(index: int = 0, *, own: Collection[int] = ()) -> Reading:
    """How many processes compute on the card that are neither of this process' family nor `own`
    ones beside it.

    In a container NVML may name no process at all, or only processes of another namespace, and
    then it cannot be told who the others are.
    """
    try:
        pids = {int(process.pid) for process in _ask(index, "processes", _computing)}
        if not pids and not cuda_in_use() and nvml_memory(index).used_bytes < LEAST_CONTEXT_BYTES:
            return Reading(0.0)
    except UnavailableError as error:
        return Reading(None, str(error))
    ours = _ours(pids, own)
    hidden = _hidden(pids, ours)
    return Reading(None, hidden) if hidden else Reading(float(len(pids - ours)))


def nvml_other_processes_bytes(index: int = 0, *, own: Collection[int] = ()) -> Reading:
    """Bytes in use on the card that no process of this one's family holds; none where the driver
    does not say what each process holds."""
    try:
        processes = [*_ask(index, "processes", _computing), *_ask(index, "processes", _drawing)]
        used = nvml_memory(index).used_bytes
    except UnavailableError as error:
        return Reading(None, str(error))
    held = {int(process.pid): process.usedGpuMemory for process in processes}
    ours = _ours(held, own)
    hidden = _hidden(held, ours)
    if hidden:
        return Reading(None, hidden)
    if any(held[pid] is None for pid in ours):
        return Reading(None, "the driver does not say what each process holds")
    return Reading(float(max(0, used - sum(int(held[pid]) for pid in ours))))


def _ours(pids: Collection[int], own: Collection[int]) -> set[int]:
    return {pid for pid in pids if pid in own or is_own(pid)}


def _hidden(pids: Collection[int], ours: Collection[int]) -> str:
    """Why these cannot be taken for all processes on the card; '' where they can: this process is
    among them if it should be, or they are all numbers of processes here."""
    if os.getpid() in ours or (ours and not cuda_in_use()):
        return ""
    if pids and not cuda_in_use() and all(Path(f"/proc/{pid}").exists() for pid in pids):
        return ""
    return "NVML does not show this process (a container hides process ids)"


def _computing(handle: Any) -> list[Any]:
    import pynvml

    return list(pynvml.nvmlDeviceGetComputeRunningProcesses(handle))


def _drawing(handle: Any) -> list[Any]:
    import pynvml

    return list(pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle))


def nvml_process_bytes(index: int = 0) -> dict[int, int]:
    """What each process that computes on the card holds of it, context included, by its number.
    Empty where NVML names none; a process whose bytes it does not tell is left out."""
    try:
        processes = _ask(index, "processes", _computing)
    except UnavailableError:
        return {}
    return {int(p.pid): int(p.usedGpuMemory) for p in processes if p.usedGpuMemory is not None}


#: NVML's reasons for lower clocks that a measurement should know of.
_SLOWED = {
    "nvmlClocksEventReasonSwPowerCap": "power cap",
    "nvmlClocksEventReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksEventReasonSwThermalSlowdown": "heat",
    "nvmlClocksEventReasonHwThermalSlowdown": "heat",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power brake",
}


def nvml_throttle_reasons(index: int = 0) -> set[str]:
    """Why the card's clocks are lowered now; empty where NVML does not say."""
    import pynvml

    try:
        bits = int(_ask(index, "clocks", pynvml.nvmlDeviceGetCurrentClocksEventReasons))
    except UnavailableError:
        return set()  # a card without this reading, or no NVML: its absence stands in the facts
    return {word for name, word in _SLOWED.items() if bits & int(getattr(pynvml, name))}


def nvml_energy_j(index: int = 0) -> Reading:
    """Joules that the whole card has used since the driver was loaded (Volta and later)."""
    import pynvml

    try:
        millijoules = _ask(index, "energy", pynvml.nvmlDeviceGetTotalEnergyConsumption)
    except UnavailableError as error:
        return Reading(None, str(error))
    return Reading(millijoules / 1e3)


def nvml_utilization(index: int = 0, *, since_s: float) -> Reading:
    """Mean share of time in which a kernel was at work on the card, over the readings of the last
    `since_s` seconds that the driver still has (it takes one every 20 to 170 ms)."""
    import pynvml

    since_us = int((time.time() - since_s) * 1e6)
    kind = pynvml.NVML_GPU_UTILIZATION_SAMPLES
    try:
        _, samples = _ask(
            index, "utilization", lambda card: pynvml.nvmlDeviceGetSamples(card, kind, since_us)
        )
    except UnavailableError as error:
        return Reading(None, str(error))
    shares = [int(sample.sampleValue.uiVal) / 100 for sample in samples]
    if not shares:
        return Reading(None, "the driver took no reading meanwhile")
    return Reading(statistics.fmean(shares))


def _ask(index: int, what: str, query: Callable[[Any], Any]) -> Any:
    """NVML's answer for this card; `UnavailableError` with its reason where it gives none."""
    import pynvml

    try:
        return query(nvml_handle(index))
    except pynvml.NVMLError as error:
        raise UnavailableError(f"NVML gives no {what}: {error}") from None


def nvml_handle(index: int) -> Any:
    """NVML's handle of `cuda:index`."""
    gpus = visible_gpus()
    if index >= len(gpus):
        raise UnavailableError(f"CUDA shows {len(gpus)} GPUs here, and none is cuda:{index}")
    return _handle_of(gpus[index].uuid)


@cache
def _handle_of(uuid: str) -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)
