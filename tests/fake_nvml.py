"""NVML of a machine that has none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class FakeNvml(SimpleNamespace):
    """Enough of pynvml for the readings of one card."""

    class NVMLError(Exception):
        pass

    nvmlMemory_v2 = 2  # noqa: N815 - pynvml's own name
    nvmlClocksEventReasonSwPowerCap = 0x4  # noqa: N815
    nvmlClocksEventReasonHwSlowdown = 0x8  # noqa: N815
    nvmlClocksEventReasonSwThermalSlowdown = 0x20  # noqa: N815
    nvmlClocksEventReasonHwThermalSlowdown = 0x40  # noqa: N815
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80  # noqa: N815

    def __init__(self, *, present: bool = True) -> None:
        super().__init__()
        self.present = present
        self.used = 5_000
        self.asked: list[Any] = []
        self.pids: list[int] = []
        self.clocks = 0x1  # idle
        self.millijoules: int | None = 2_500

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.present:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: int) -> SimpleNamespace:  # noqa: N802
        self.asked.append(version)
        return SimpleNamespace(total=16_000, reserved=400, used=self.used, free=15_600 - self.used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in self.pids]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        if self.millijoules is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:  # noqa: N802
        return self.clocks
