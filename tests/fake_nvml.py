"""NVML of a machine that has none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class FakeNvml(SimpleNamespace):
    """Enough of pynvml for the readings of one card."""

    class NVMLError(Exception):
        pass

    nvmlMemory_v2 = 2  # noqa: N815 - pynvml's own name
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_GPU_UTILIZATION_SAMPLES = 1
    nvmlClocksEventReasonSwPowerCap = 0x4  # noqa: N815
    nvmlClocksEventReasonHwSlowdown = 0x8  # noqa: N815
    nvmlClocksEventReasonSwThermalSlowdown = 0x20  # noqa: N815
    nvmlClocksEventReasonHwThermalSlowdown = 0x40  # noqa: N815
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80  # noqa: N815

    def __init__(self, *, present: bool = True) -> None:
        super().__init__()
        self.present = present
        self.total, self.reserved, self.used = 16_000, 400, 5_000
        self.asked: list[Any] = []
        self.pids: list[int] = []
        #: Of each process, where the driver says it.
        self.held: dict[int, int] = {}
        #: UUIDs in the order of NVML's own numbers, and what the cards are called.
        self.uuids = ["GPU-aaaa"]
        self.names = ["Tesla T4"]
        self.divided = False
        #: UUIDs of the cards that were asked for their memory.
        self.looked_up: list[str] = []
        self.clocks = 0x1  # idle
        self.millijoules: int | None = 2_500
        self.busy_percent = [40, 80]

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.present:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        self.looked_up.append(uuid)
        return self.uuids.index(uuid)

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return self.uuids[handle]

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.names[handle]

    def nvmlDeviceGetPciInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(busId=f"00000000:{handle:02X}:00.0")

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return (7, 5)

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 13_000

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.82.07"

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        if not self.divided:
            raise self.NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        return 40

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        return 1_590

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        return 70_000

    def nvmlDeviceGetEccMode(self, handle: int) -> list[int]:  # noqa: N802
        return [1, 1]

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return 30_000

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: int) -> SimpleNamespace:  # noqa: N802
        self.asked.append(version)
        free = self.total - self.reserved - self.used
        return SimpleNamespace(total=self.total, reserved=self.reserved, used=self.used, free=free)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=self.held.get(pid)) for pid in self.pids]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return []

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        if self.millijoules is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetSamples(self, handle: int, kind: int, since_us: int) -> tuple[int, list[Any]]:  # noqa: N802
        return 1, [
            SimpleNamespace(timeStamp=since_us + n, sampleValue=SimpleNamespace(uiVal=percent))
            for n, percent in enumerate(self.busy_percent)
        ]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:  # noqa: N802
        return self.clocks
