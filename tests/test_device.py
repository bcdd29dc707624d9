"""The CPU for real, CUDA and NVML by small fakes; `-m gpu` runs against the real thing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hybridlab import device
from hybridlab.bystanders import Watch, interference
from hybridlab.device import nvml as nvml_module
from hybridlab.device.base import SLACK
from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.units import MIB
from tests.fake_nvml import FakeNvml


def test_the_cpu_reads_the_machine() -> None:
    cpu = device.resolve_device("cpu")
    assert 0 < cpu.used_bytes() <= cpu.peak_bytes()
    assert 0 < cpu.free_bytes() <= cpu.capacity_bytes()
    assert "float32" in cpu.native_dtypes()
    assert cpu.title()


def test_a_missing_gpu_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UnavailableError, match="set device to cpu"):
        device.resolve_device("cuda")
    with pytest.raises(ParameterError, match="choose auto"):
        device.resolve_device("tpu")


def test_nvml_memory_is_read_in_its_second_version(nvml: FakeNvml) -> None:
    assert nvml_module.nvml_used_bytes(0).value == 5_000
    assert nvml.asked == [2]


def test_no_nvml_is_an_empty_value_with_a_reason(nvml: FakeNvml) -> None:
    nvml.present = False
    reading = nvml_module.nvml_used_bytes(0)
    assert reading.value is None
    assert "Driver Not Loaded" in reading.reason
    assert "no NVML" in nvml_module.nvml_facts(0)["reason"]


def test_energy_is_read_in_joules_or_is_missing_with_a_reason(nvml: FakeNvml) -> None:
    assert nvml_module.nvml_energy_j().value == 2.5
    nvml.millijoules = None
    assert nvml_module.nvml_energy_j().value is None
    assert "Not Supported" in nvml_module.nvml_energy_j().reason
    assert device.CpuDevice().energy_j().value is None


def test_neighbours_are_the_other_processes_on_the_card(nvml: FakeNvml) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    nvml.pids = [os.getpid(), child.pid, 1]  # this process, its ballast, a stranger
    assert nvml_module.nvml_neighbours(0).value == 1
    child.communicate(b"\n")


def test_a_container_that_hides_process_ids_gives_no_count_but_a_reason(nvml: FakeNvml) -> None:
    for nvml.pids in ([], [1, 2]):  # none at all, or those of another namespace
        reading = nvml_module.nvml_neighbours(0)
        assert reading.value is None
        assert "hides process ids" in reading.reason
    watch = Watch(device.CudaDevice(0))
    columns = watch.columns()
    assert columns["foreign_gpu_processes"] is None
    assert interference(columns, most_foreign_cpu=1.0) == ""


def test_lowered_clocks_and_strangers_during_a_case_are_noted(nvml: FakeNvml) -> None:
    nvml.pids = [os.getpid()]
    watch = Watch(device.CudaDevice(0))
    nvml.clocks, nvml.pids = 0x4 | 0x20, [os.getpid(), 1]
    watch.look()
    nvml.clocks, nvml.pids = 0x1, [os.getpid()]
    columns = watch.columns()
    assert columns["throttled"] == "heat, power cap"
    assert columns["foreign_gpu_processes"] == 1
    assert "1 other processes computed" in interference(columns, most_foreign_cpu=1.0)


def test_a_busy_host_is_no_place_for_times() -> None:
    columns = {"foreign_gpu_processes": None, "foreign_cpu_share": 0.6}
    assert "60%" in interference(columns, most_foreign_cpu=0.25)
    assert interference(columns, most_foreign_cpu=0.6) == ""
    unknown = Watch(device.CpuDevice()).columns()  # over in no time
    assert unknown["foreign_cpu_share"] is None
    assert interference(unknown, most_foreign_cpu=0.0) == ""


def test_a_cuda_account_closes_over_the_card(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVML says 5,000 used: 1,200 before this process came, 3,000 reserved by torch."""
    import torch

    nvml.used = 1_200
    card = device.CudaDevice(0)
    nvml.used = 5_000
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 3_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: 2_600)
    account = card.account()
    assert account.inside == {}
    assert account.outside == {
        "allocator slack": 400,
        "strangers": 1_200,
        "context": 800,
    }
    # what the driver keeps for itself is no part of the capacity
    assert account.free_bytes(capacity_bytes=15_600, used_bytes=2_600) == 15_600 - 5_000
    card.shrink(9_000, ballast_bytes=300)  # nor is a ballast of an envelope's
    inside = card.account()
    assert (inside.outside["strangers"], inside.outside["context"]) == (1_200, 500)
    assert inside.free_bytes(capacity_bytes=9_000, used_bytes=2_600) == 9_000 - 4_700


def test_without_nvml_owners_outside_torch_have_no_reading(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    nvml.present = False
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 3_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: 2_600)
    assert device.CudaDevice(0).account().outside == {"allocator slack": 400}


class FakeT4(device.CudaDevice):
    """A T4 as torch shows it: bfloat16 'supported' by emulation."""

    def title(self) -> str:
        return "Tesla T4"

    def _capacity_bytes(self) -> int:
        return int(14.56 * 2**30)


def test_emulated_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    t4 = FakeT4(0)
    assert t4.native_dtypes() == ("float32", "float16")
    with pytest.raises(UnavailableError, match="no bfloat16 in hardware"):
        t4.check_dtype("bfloat16")
    t4.check_dtype("float16")


def test_a_card_is_recognised_by_name_and_size() -> None:
    found = device.card_of(FakeT4(0))
    assert found is not None
    assert found.name == "t4"
    assert device.card_of(device.CpuDevice()) is None


@pytest.mark.gpu
def test_cuda_reads_a_known_allocation() -> None:
    import torch

    from hybridlab.meter import Meter

    gpu = device.resolve_device("cuda")
    size = 256 * 2**20
    with Meter(gpu) as meter:
        with meter.region("load") as region:
            kept = torch.zeros(size, dtype=torch.uint8, device=gpu.name)
        assert region.peak_above_start_bytes == pytest.approx(size, rel=0.01)
        assert kept.numel() == size
    begin = gpu.stamp()
    torch.cuda._sleep(10_000_000)
    assert gpu.seconds(gpu.stamp()) > gpu.seconds(begin)


@pytest.mark.gpu
def test_what_no_owner_has_is_what_the_driver_calls_free() -> None:
    """At a peak as well, with the slack of that moment: nothing is given back in between."""
    import torch

    from hybridlab.meter import Meter

    gpu = device.resolve_device("cuda")
    capacity = gpu.capacity_bytes()
    with Meter(gpu) as meter:
        with meter.region("load"):
            kept = torch.zeros(64 * MIB, dtype=torch.uint8, device=gpu.name)
        meter.settle()
        with meter.region("request") as region:
            torch.zeros(301 * MIB, dtype=torch.uint8, device=gpu.name)
        driver, total = torch.cuda.mem_get_info()
        peak = region.peak_account
        assert capacity == total
        assert region.account.free_bytes(
            capacity_bytes=capacity, used_bytes=region.end_bytes
        ) == pytest.approx(driver, abs=MIB)
        assert peak.free_bytes(
            capacity_bytes=capacity, used_bytes=region.peak_bytes
        ) == pytest.approx(driver, abs=MIB)
        assert peak.outside[SLACK] < 4 * MIB < 300 * MIB < region.account.outside[SLACK]
        assert region.peak_bytes - meter.base_bytes >= 365 * MIB
    assert kept.numel() == 64 * MIB


@pytest.mark.gpu
def test_workspaces_of_cublas_have_an_owner() -> None:
    import torch

    gpu = device.resolve_device("cuda")
    torch._C._cuda_clearCublasWorkspaces()
    assert gpu.account().inside["workspaces"] == 0
    one = torch.zeros(64, 64, device=gpu.name)
    _ = one @ one
    size = torch.backends.cuda.cublas_workspace_size()
    assert gpu.account().inside["workspaces"] == size
    with torch.cuda.stream(torch.cuda.Stream()):
        _ = one @ one
    torch.cuda.synchronize()
    assert gpu.account().inside["workspaces"] == 2 * size


@pytest.mark.gpu
def test_a_ballast_makes_a_real_card_run_out_of_memory() -> None:
    import torch

    from hybridlab.envelope import enveloped
    from hybridlab.oom import out_of_memory

    gpu = device.resolve_device("cuda")
    torch.zeros(1, device=gpu.name)
    with enveloped(gpu, 2 * 2**30):
        assert gpu.capacity_bytes() == 2 * 2**30
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch.empty(3 * 2**30, dtype=torch.uint8, device=gpu.name)
        assert out_of_memory(caught.value) is not None
    assert torch.empty(3 * 2**30, dtype=torch.uint8, device=gpu.name).numel() == 3 * 2**30


@pytest.mark.gpu
def test_the_account_of_an_enveloped_card_closes_over_the_envelope() -> None:
    import torch

    from hybridlab.envelope import enveloped

    gpu = device.resolve_device("cuda")
    kept = torch.zeros(64 * MIB, dtype=torch.uint8, device=gpu.name)
    with enveloped(gpu, 4 * 2**30):
        free = gpu.account().free_bytes(
            capacity_bytes=gpu.capacity_bytes(), used_bytes=gpu.used_bytes()
        )
        assert free == pytest.approx(torch.cuda.mem_get_info()[0], abs=4 * MIB)
    assert kept.numel() == 64 * MIB


@pytest.mark.gpu
def test_an_envelope_as_large_as_the_card_is_none_and_one_that_is_full_is_refused() -> None:
    import torch

    from hybridlab.envelope import enveloped

    gpu = device.resolve_device("cuda")
    own = gpu.capacity_bytes()
    with enveloped(gpu, own):
        assert not gpu.enveloped
        assert gpu.capacity_bytes() == own
    kept = torch.zeros(512 * MIB, dtype=torch.uint8, device=gpu.name)
    with (
        pytest.raises(UnavailableError, match="in use already"),
        enveloped(gpu, 300 * MIB),
    ):
        pytest.fail("there was no room")
    assert kept.numel() == 512 * MIB
