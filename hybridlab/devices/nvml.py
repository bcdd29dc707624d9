"""NVML: what only the driver knows of a card. Without it every reading is empty, with a reason.

An index is CUDA's: `cuda:N` of this process. NVML counts all cards of the machine, in an order of
its own, so a card is looked up by its UUID.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Collection
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


def nvml_memory(index: int = 0) -> Any:
    """The card's memory now, as NVML's v2 memory info has it: `used`, `free` and what the driver
    keeps for itself (`reserved`) sum to `total`. `UnavailableError` without NVML."""
    return _ask(
        index, "memory", lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card, nvml.nvmlMemory_v2)
    )


def _reading(read: Callable[[], float]) -> Reading:
    """What this reads, or the reason of its `UnavailableError`."""
    try:
        return Reading(float(read()))
    except UnavailableError as error:
        return Reading(None, str(error))


def nvml_used_bytes(index: int = 0) -> Reading:
    """Bytes in use on the whole card without what the driver reserves."""
    return _reading(lambda: nvml_memory(index).used)


def nvml_facts(index: int = 0) -> dict[str, Any]:
    """Driver, CUDA, name, temperature, clocks and power; missing readings carry their reason."""
    import pynvml

    try:
        card, gpu = nvml_handle(index), visible_gpus()[index]
    except pynvml.NVMLError as error:
        return {"reason": f"no NVML: {error}"}
    except UnavailableError as error:
        return {"reason": str(error)}
    queries = {
        "driver": pynvml.nvmlSystemGetDriverVersion,
        "cuda": lambda: "{}.{}".format(*divmod(gpu.cuda_version // 10, 100)),
        "name": lambda: pynvml.nvmlDeviceGetName(card),
        "compute_capability": lambda: "{}.{}".format(*gpu.capability),
        "capacity_bytes": lambda: gpu.capacity_bytes,
        "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU),
        "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM),
        "highest_sm_clock_mhz": lambda: pynvml.nvmlDeviceGetMaxClockInfo(
            card, pynvml.NVML_CLOCK_SM
        ),
        "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(card) / 1e3,
        "power_limit_w": lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1e3,
        "ecc": lambda: bool(pynvml.nvmlDeviceGetEccMode(card)[0]),
    }
    facts: dict[str, Any] = {}
    for name, query in queries.items():
        try:
            facts[name] = query()
        except pynvml.NVMLError as error:
            facts |= {name: None, f"{name}_reason": str(error)}
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

    def count() -> int:
        pids = {int(process.pid) for process in _ask(index, "processes", _computing)}
        if not pids and not cuda_in_use() and nvml_memory(index).used < LEAST_CONTEXT_BYTES:
            return 0
        return len(pids - _ours(pids, own))

    return _reading(count)


def nvml_other_processes_bytes(index: int = 0, *, own: Collection[int] = ()) -> Reading:
    """Bytes in use on the card that no process of this one's family holds; none where the driver
    does not say what each process holds."""

    def count() -> int:
        processes = [*_ask(index, "processes", _computing), *_ask(index, "processes", _drawing)]
        used = int(nvml_memory(index).used)
        held = {int(process.pid): process.usedGpuMemory for process in processes}
        ours = [held[pid] for pid in _ours(held, own)]
        if None in ours:
            raise UnavailableError("the driver does not say what each process holds")
        return max(0, used - sum(map(int, ours)))

    return _reading(count)


def _ours(pids: Collection[int], own: Collection[int]) -> set[int]:
    """Those of this process' family; `UnavailableError` where these are not all processes on the
    card: this process is not among them though it should be, nor are they all numbers of processes
    here."""
    ours = {pid for pid in pids if pid in own or is_own(pid)}
    unused = not cuda_in_use()
    numbered = bool(pids) and all(Path(f"/proc/{pid}").exists() for pid in pids)
    if os.getpid() in ours or (unused and (ours or numbered)):
        return ours
    raise UnavailableError("NVML does not show this process (a container hides process ids)")


def _computing(nvml: Any, card: Any) -> list[Any]:
    return list(nvml.nvmlDeviceGetComputeRunningProcesses(card))


def _drawing(nvml: Any, card: Any) -> list[Any]:
    return list(nvml.nvmlDeviceGetGraphicsRunningProcesses(card))


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

    def words(nvml: Any, card: Any) -> set[str]:
        bits = int(nvml.nvmlDeviceGetCurrentClocksEventReasons(card))
        return {word for name, word in _SLOWED.items() if bits & int(getattr(nvml, name))}

    try:
        found: set[str] = _ask(index, "clocks", words)
    except UnavailableError:
        return set()  # a card without this reading, or no NVML: its absence stands in the facts
    return found


def nvml_energy_j(index: int = 0) -> Reading:
    """Joules that the whole card has used since the driver was loaded (Volta and later)."""
    return _reading(
        lambda: _ask(
            index, "energy", lambda nvml, card: nvml.nvmlDeviceGetTotalEnergyConsumption(card) / 1e3
        )
    )


def nvml_utilization(index: int = 0, *, since_s: float) -> Reading:
    """Mean share of time in which a kernel was at work on the card, over the readings of the last
    `since_s` seconds that the driver still has (it takes one every 20 to 170 ms)."""
    since_us = int((time.time() - since_s) * 1e6)

    def mean(nvml: Any, card: Any) -> float:
        kind = nvml.NVML_GPU_UTILIZATION_SAMPLES
        _, samples = nvml.nvmlDeviceGetSamples(card, kind, since_us)
        if not samples:
            raise UnavailableError("the driver took no reading meanwhile")
        return statistics.fmean(int(sample.sampleValue.uiVal) / 100 for sample in samples)

    return _reading(lambda: _ask(index, "utilization", mean))


def _ask(index: int, what: str, query: Callable[[Any, Any], Any]) -> Any:
    """What `query` makes of pynvml and this card; `UnavailableError` where NVML gives no answer."""
    import pynvml

    try:
        return query(pynvml, nvml_handle(index))
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
