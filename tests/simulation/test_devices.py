"""Which cards a process sees, in CUDA's numbering and in NVML's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from hybridlab.simulation import state
from hybridlab.units import GIB, MIB
from tests.simulation.conftest import Bench

NVML = "import pynvml as n\nn.nvmlInit()\n"


def uuids(bench: Bench) -> list[str]:
    return [card.uuid for card in state.read(bench.folder / "card")]


@pytest.fixture
def two(bench: Bench) -> Bench:
    """A T4 on the first bus and an A100, which is faster, on the second."""
    bench.create("t4", "a100-40")
    return bench


def test_nvml_counts_by_bus_whatever_cuda_sees(two: Bench) -> None:
    said = two.run(
        NVML
        + """
import torch
names = [n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(i)) for i in (0, 1)]
say(names=names, uuid=f"GPU-{torch.cuda.get_device_properties(0).uuid}")
""",
        CUDA_VISIBLE_DEVICES="1",
    )
    assert said["names"] == ["Tesla T4", "NVIDIA A100-SXM4-40GB"]
    assert said["uuid"] == uuids(two)[0]  # the slower one is CUDA's second


def test_visible_devices_by_index_and_uuid(two: Bench) -> None:
    """CUDA counts the fastest first, unless it is told to count by bus."""
    t4, a100 = uuids(two)
    code = """
        n = c.c_int()
        error = rt.cudaGetDeviceCount(c.byref(n))
        seen = []
        for i in range(n.value):
            text = c.create_string_buffer(64)
            assert rt.cudaDeviceGetPCIBusId(text, 64, i) == 0
            seen.append(text.value.decode())
        say(error=error, seen=seen)
        """
    first, second = "0000:01:00.0", "0000:02:00.0"  # the T4's and the A100's
    for wish, seen in {
        "0": [second],
        "1": [first],
        "1,0": [first, second],
        "0,7,1": [second],
        "0,0": [],
        "-1": [],
        "": [],
        "nonsense": [],
        "MIG-1234": [],
        t4: [first],
        f"{a100},{t4}": [second, first],
        a100[:12]: [second],
    }.items():
        said = two.call(code, CUDA_VISIBLE_DEVICES=wish)
        assert said == {"error": 0 if seen else 100, "seen": seen}, wish
    assert two.call(code)["seen"] == [second, first]
    assert two.call(code, CUDA_DEVICE_ORDER="PCI_BUS_ID")["seen"] == [first, second]


def test_each_card_has_memory_of_its_own(two: Bench) -> None:
    said = two.run(
        """
        import torch
        a = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda:1")
        b = torch.arange(1000, device="cpu").to("cuda:1").to("cuda:0")
        say(held=sorted([u.card, u.device_bytes] for u in users()),
            peer=torch.cuda.can_device_access_peer(0, 1), values=b.cpu().sum().item())
        """,
        CUDA_DEVICE_ORDER="PCI_BUS_ID",
    )
    held = [[0, 2 * MIB], [1, 66 * MIB]]
    assert said == {"held": held, "peer": False, "values": 499_500}


def test_nvml_finds_a_card_by_index_uuid_and_bus(two: Bench) -> None:
    said = two.run(
        NVML
        + """
        import itertools
        def card(handle): return n.nvmlDeviceGetIndex(handle), n.nvmlDeviceGetUUID(handle)
        h = n.nvmlDeviceGetHandleByIndex(1)
        bus = n.nvmlDeviceGetPciInfo(h).busId
        found = [card(n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(h))),
                 card(n.nvmlDeviceGetHandleByPciBusId(bus)),
                 card(n.nvmlDeviceGetHandleByPciBusId("0000:02:00.0"))]
        errors = []
        for call in (lambda: n.nvmlDeviceGetHandleByIndex(2), lambda: n.nvmlDeviceGetHandleByUUID("GPU-1"),
                     lambda: n.nvmlDeviceGetHandleByPciBusId("0:9:0"), lambda: n.nvmlDeviceGetMigMode(h)):
            try: call()
            except n.NVMLError as error: errors.append(type(error).__name__)
        say(found=found, bus=bus, errors=errors, count=n.nvmlDeviceGetCount())
        """.replace("\n        ", "\n")  # noqa: E501
    )
    a100 = [1, uuids(two)[1]]
    assert said == {
        "found": [a100, a100, a100],
        "bus": "00000000:02:00.0",
        "errors": [
            "NVMLError_InvalidArgument",
            "NVMLError_NotFound",
            "NVMLError_NotFound",
            "NVMLError_NotSupported",
        ],
        "count": 2,
    }


PROCESSES = (
    NVML
    + """
h = n.nvmlDeviceGetHandleByIndex(0)
m = n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
old = n.nvmlDeviceGetMemoryInfo(h)
say(processes=[[p.pid, p.usedGpuMemory] for p in n.nvmlDeviceGetComputeRunningProcesses(h)],
    sum=m.total - m.reserved - m.used - m.free, used=m.used, reserved=m.reserved,
    old=old.used - m.used - m.reserved)
"""
)


@pytest.mark.parametrize("hidden", [False, True])
def test_nvml_names_each_process_with_its_bytes(
    bench: Bench, other: Callable[[], subprocess.Popen[bytes]], hidden: bool
) -> None:
    bench.create("t4", hide_pids=hidden)
    strangers = [other(), other()]
    for number, stranger in enumerate(strangers, 1):
        state.inject(bench.folder / "card", pid=stranger.pid, n_bytes=number * GIB)
    said = bench.run(PROCESSES)
    named = [[stranger.pid, i * GIB] for i, stranger in enumerate(strangers, 1)]
    assert said["processes"] == ([] if hidden else named)
    assert (said["sum"], said["used"], said["old"]) == (0, 3 * GIB, 0)
    assert said["reserved"] > 400 * MIB


def test_torch_names_a_stranger_when_it_runs_out(
    bench: Bench, other: Callable[[], subprocess.Popen[bytes]]
) -> None:
    stranger = other()
    state.inject(bench.folder / "card", pid=stranger.pid, n_bytes=10 * GIB)
    said = bench.run(
        """
        import torch
        try: torch.empty(8 << 30, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError as error: say(text=str(error))
        """
    )
    assert f"Process {stranger.pid} has 10.00 GiB memory in use" in said["text"]


def test_without_nvml_its_library_is_not_found(bench: Bench) -> None:
    bench.create("t4", nvml=False)
    said = bench.run(
        """
        import pynvml as n
        try: n.nvmlInit()
        except n.NVMLError as error: say(error=type(error).__name__)
        """
    )
    assert said == {"error": "NVMLError_LibraryNotFound"}


def test_work_shows_in_utilisation_clocks_power_and_energy(bench: Bench) -> None:
    said = bench.run(
        """
        import time
        import pynvml as n, torch
        n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0)
        def look():
            return [n.nvmlDeviceGetUtilizationRates(h).gpu, n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM),
                    n.nvmlDeviceGetPowerUsage(h), n.nvmlDeviceGetTotalEnergyConsumption(h)]
        x = torch.zeros(8, device="cuda"); time.sleep(0.2)
        idle = look()
        for _ in range(2000): x.add_(1)
        busy = look()
        say(idle=idle, busy=busy, slowed=n.nvmlDeviceGetCurrentClocksEventReasons(h),
            counted=state.read(STATE)[0].activity.launches)
        """  # noqa: E501
    )
    chip = state.CHIPS["t4"]
    assert said["idle"][:3] == [0, state.IDLE_CLOCK_MHZ, chip.idle_power_w * 1000]
    assert said["busy"][:3] == [100, chip.clock_mhz, chip.power_limit_w * 1000]
    assert said["busy"][3] >= said["idle"][3] + 2000
    assert said["counted"] >= 2000
    assert said["slowed"] == 0


def test_without_a_state_there_is_no_card(bench: Bench) -> None:
    (bench.folder / "card").unlink()
    said: dict[str, Any] = bench.call(
        "say(error=rt.cudaGetDeviceCount(c.byref(c.c_int())), made=malloc(1)[0])",
        HYBRIDLAB_SIMULATED_CARD="",
    )
    assert said == {"error": 100, "made": 100}


def test_a_file_that_is_no_state_ends_the_process_with_one_line(bench: Bench) -> None:
    (bench.folder / "card").write_bytes(os.urandom(100_000))
    with bench.start("c.CDLL(os.environ['RUNTIME']).cudaFree(None)") as process:
        _, error = process.communicate()
    assert process.returncode == 70
    assert error.strip().endswith("not a state file of this version")


def test_a_card_runs_the_newest_code_of_its_kind(bench: Bench) -> None:
    """torch's sort is tuned by the architecture that its kernel was compiled for: 8.6 on an L4."""
    bench.create("t4", "a10g", "l4", "h100")
    said = bench.run(
        """
        import torch
        from hybridlab.simulation import values
        values.install("all")
        counts = [torch.arange(5000, device=f"cuda:{i}").flip(0) for i in range(4)]
        say(sorted=[count.sort().values[:3].tolist() for count in counts])
        """
    )
    assert said["sorted"] == [[0, 1, 2]] * 4
