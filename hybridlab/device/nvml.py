"""NVML: what only the driver knows of a card. Without it every reading is empty, with a reason."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from hybridlab.device.base import Reading
from hybridlab.device.linux import is_own
from hybridlab.errors import UnavailableError


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

    try:
        info = pynvml.nvmlDeviceGetMemoryInfo(nvml_handle(index), version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        raise UnavailableError(f"no NVML: {error}") from None
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
    queries = {
        "driver": pynvml.nvmlSystemGetDriverVersion,
        "name": lambda: pynvml.nvmlDeviceGetName(handle),
        "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(
            handle, pynvml.NVML_TEMPERATURE_GPU
        ),
        "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "other_processes": lambda: nvml_neighbours(index).value,
    }
    facts: dict[str, Any] = {}
    for name, query in queries.items():
        try:
            facts[name] = query()
        except pynvml.NVMLError as error:
            facts[name] = None
            facts[f"{name}_reason"] = str(error)
    return facts


def nvml_neighbours(index: int = 0, *, own: Collection[int] = ()) -> Reading:
    """How many processes beside this one, its children and its `own` workers compute on the card.

    In a container NVML may name no process at all, or only processes of another namespace: where
    this process cannot find itself, it cannot tell who the others are.
    """
    import pynvml

    try:
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(nvml_handle(index))
    except pynvml.NVMLError as error:
        return Reading(None, f"no NVML: {error}")
    pids = {int(process.pid) for process in processes}
    if os.getpid() not in pids:
        return Reading(None, "NVML does not show this process (a container hides process ids)")
    return Reading(float(sum(pid not in own and not is_own(pid) for pid in pids)))


def nvml_process_bytes(index: int = 0) -> dict[int, int]:
    """What each process that computes on the card holds of it, context included, by its number.
    Empty where NVML names none; a process whose bytes it does not tell is left out."""
    import pynvml

    try:
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(nvml_handle(index))
    except pynvml.NVMLError:
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


def nvml_slowed_by(index: int = 0) -> set[str]:
    """Why the card's clocks are lowered now; empty where NVML does not say."""
    import pynvml

    try:
        bits = int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(nvml_handle(index)))
    except pynvml.NVMLError:
        return set()  # a card without this reading, or no NVML: its absence stands in the facts
    return {word for name, word in _SLOWED.items() if bits & int(getattr(pynvml, name))}


def nvml_energy_j(index: int = 0) -> Reading:
    """Joules that the whole card has used since the driver was loaded (Volta and later)."""
    import pynvml

    try:
        millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(nvml_handle(index))
    except pynvml.NVMLError as error:
        return Reading(None, f"NVML gives no energy: {error}")
    return Reading(millijoules / 1e3)


@cache
def nvml_handle(index: int) -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByIndex(index)
