"""The CPU for real, CUDA and NVML by small fakes; `-m gpu` runs against the real thing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hybridlab import catalog, planner
from hybridlab import devices as device
from hybridlab.devices import CpuDevice, visible
from hybridlab.devices import nvml as nvml_module
from hybridlab.devices.base import SLACK, UNTRACKED
from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.profiling.contention import ContentionMonitor, contention_reason
from hybridlab.units import MIB
from tests.conftest import FakeAllocator
from tests.fake_nvml import FakeNvml


def test_the_cpu_reads_the_machine() -> None:
    cpu = device.resolve_device("cpu")
    assert 0 < cpu.used_bytes() <= cpu.peak_bytes()
    assert 0 < cpu.free_bytes() <= cpu.capacity_bytes()
    assert "float32" in cpu.native_dtypes()
    assert cpu.title()


def test_a_missing_gpu_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_lack", lambda: "no driver")
    with pytest.raises(UnavailableError, match=r"0 CUDA devices \(no driver\); set device to cpu"):
        device.resolve_device("cuda")
    assert device.resolve_device("auto").is_host
    with pytest.raises(ParameterError, match="choose auto"):
        device.resolve_device("tpu")


def test_readings_of_a_card_or_the_reason_why_there_are_none(nvml: FakeNvml) -> None:
    assert nvml_module.nvml_used_bytes(0).value == 5_000
    assert set(nvml.asked) == {2}  # the version of its memory info
    assert nvml_module.nvml_energy_j().value == 2.5
    nvml.millijoules = None
    assert "Not Supported" in nvml_module.nvml_energy_j().reason
    nvml_module._handle_of.cache_clear()
    nvml.present = False
    for reading in (nvml_module.nvml_used_bytes(0), nvml_module.nvml_energy_j()):
        assert reading.value is None
        assert "Driver Not Loaded" in reading.reason
    assert "no NVML" in nvml_module.nvml_facts(0)["reason"]
    assert device.CpuDevice().energy_j().value is None


def test_only_processes_of_other_families_count(nvml: FakeNvml) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    nvml.pids = [os.getpid(), child.pid, 1]  # this process, its ballast, a stranger
    assert nvml_module.nvml_other_processes(0).value == 1
    assert nvml_module.nvml_other_processes(0, own=[1]).value == 0  # a worker by another way
    nvml.pids = [1]  # this process computes nothing, and pid 1 is one of this namespace
    assert nvml_module.nvml_other_processes(0).value == 1
    child.communicate(b"\n")


def test_a_container_that_hides_process_ids_gives_no_count_but_a_reason(
    nvml: FakeNvml, allocator: FakeAllocator
) -> None:
    for nvml.pids in ([], [1, 2]):  # none at all, or those of another namespace
        reading = nvml_module.nvml_other_processes(0)
        assert reading.value is None
        assert "hides process ids" in reading.reason
    watch = ContentionMonitor(device.CudaDevice(0))
    columns = watch.columns()
    assert columns["other_gpu_processes"] is None
    assert contention_reason(columns, max_other_cpu_share=1.0) == ""


def test_before_this_process_computes_hidden_processes_are_known_by_what_they_hold(
    nvml: FakeNvml,
) -> None:
    assert nvml_module.nvml_other_processes(0).value == 0  # 5,000 bytes are no context
    nvml.used = 200 * MIB
    assert nvml_module.nvml_other_processes(0).value is None
    nvml.pids = [2**22 + 1]  # of another namespace: there is no such process here
    assert nvml_module.nvml_other_processes(0).value is None


def test_lowered_clocks_and_other_processes_during_a_case_are_noted(nvml: FakeNvml) -> None:
    nvml.pids = [os.getpid()]
    watch = ContentionMonitor(device.CudaDevice(0))
    nvml.clocks, nvml.pids = 0x4 | 0x20, [os.getpid(), 1]
    watch.look()
    nvml.clocks, nvml.pids = 0x1, [os.getpid()]
    columns = watch.columns()
    assert columns["throttled"] == "heat, power cap"
    assert columns["gpu_utilization_share"] == pytest.approx(0.6)
    assert columns["process_cpu_s"] >= 0
    assert columns["other_gpu_processes"] == 1
    assert "1 other processes computed" in contention_reason(columns, max_other_cpu_share=1.0)


def test_a_busy_host_is_no_place_for_times() -> None:
    columns = {"other_gpu_processes": None, "other_processes_cpu_share": 0.6}
    assert "60 %" in contention_reason(columns, max_other_cpu_share=0.25)
    assert contention_reason(columns, max_other_cpu_share=0.6) == ""
    unknown = ContentionMonitor(device.CpuDevice()).columns()  # over in no time
    assert unknown["other_processes_cpu_share"] is unknown["gpu_utilization_share"] is None
    assert unknown["gpu_utilization_reason"]
    assert contention_reason(unknown, max_other_cpu_share=0.0) == ""


def test_the_owners_of_a_card_add_up_to_its_capacity(
    nvml: FakeNvml, allocator: FakeAllocator
) -> None:
    """NVML says 5,000 used: 1,200 before this process came, 3,000 reserved by torch."""
    nvml.used = 1_200
    card = device.CudaDevice(0)
    nvml.used = 5_000
    allocator.reserved, allocator.allocated = 3_000, 2_600
    states = ("active_allocated", "active_allocated", "inactive")
    allocator.blocks += [{"state": state, "requested_size": 700} for state in states]
    allocator.blocks += [{"state": "active_allocated", "requested_size": 1_200}]
    account = card.memory_owners()
    assert account.in_process == {"workspaces": 2 * 700}
    assert account.external == {
        "allocator cache": 400,
        "other processes": 1_200,
        "context": 800,
    }
    # what the driver keeps for itself is no part of the capacity
    assert account.free_bytes(capacity_bytes=card.capacity_bytes(), used_bytes=2_600) == 10_600
    assert card.free_bytes() == 10_600
    card.set_memory_limit(9_000, ballast_bytes=300)  # nor is the ballast of a memory limit
    inside = card.memory_owners()
    assert (inside.external["other processes"], inside.external["context"]) == (1_200, 500)
    assert inside.free_bytes(capacity_bytes=9_000, used_bytes=2_600) == 9_000 - 4_700


def test_other_processes_are_those_of_other_families_now(
    nvml: FakeNvml, allocator: FakeAllocator
) -> None:
    nvml.used = 100  # a stranger that is there when this process comes
    card = device.CudaDevice(0)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    nvml.pids, nvml.used = [os.getpid(), child.pid, 1], 5_000
    nvml.held = {os.getpid(): 3_500, child.pid: 500}  # a stranger's own number may be missing
    assert card.other_processes_bytes.value == 1_000
    allocator.reserved = 3_000
    assert card.memory_owners().external["context"] == 1_000  # 500 of each own process
    nvml.used = 8_000  # the stranger has grown
    assert card.other_processes_bytes.value == 4_000
    nvml.held = {os.getpid(): 3_500}  # the driver does not say it of every own process
    assert card.other_processes_bytes.value == 100
    child.communicate(b"\n")


def test_a_second_case_in_one_process_does_not_count_the_first_ones_context(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    nvml.used = 1_200
    assert device.CudaDevice(0).other_processes_bytes.value == 1_200
    allocator: FakeAllocator = request.getfixturevalue("allocator")  # CUDA is used from here on
    nvml.used, allocator.reserved = 5_000, 3_000
    second = device.CudaDevice(0)
    assert second.other_processes_bytes.value == 1_200
    assert second.memory_owners().external["context"] == 800


def test_what_malloc_gave_back_is_no_free_heap() -> None:
    host = CpuDevice()
    blocks = [bytearray(60_000) for _ in range(1_000)]  # small enough for the heap, 60 MB together
    kept, last = blocks[:-1:2], blocks[-1]  # above all others, so that these stay malloc's
    del blocks
    host.release()
    assert host.memory_owners().in_process["free heap"] < MIB
    del kept
    assert host.memory_owners().in_process["free heap"] > 20 * MIB
    host.release()
    assert host.memory_owners().in_process["free heap"] < MIB
    del last


def test_without_nvml_owners_outside_torch_cannot_be_told_apart(
    nvml: FakeNvml, allocator: FakeAllocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    nvml.present = False
    allocator.reserved, allocator.allocated = 3_000, 2_600
    card = device.CudaDevice(0)
    assert card.memory_owners().external == {"allocator cache": 400}
    monkeypatch.setattr(device.CudaDevice, "_capacity_bytes", lambda self: 15_600)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10_600, 15_600))
    assert card.memory_owners().external == {
        "allocator cache": 400,
        "context and other processes": 2_000,
    }


def test_before_cuda_is_used_its_allocator_holds_nothing_and_no_question_begins_it(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is asked for its peak before it has loaded anything."""
    import torch

    def begun(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA was used")

    for name in (
        "_lazy_init",
        "reset_peak_memory_stats",
        "synchronize",
        "mem_get_info",
        "memory_snapshot",
        "Event",
        "get_device_properties",
    ):
        monkeypatch.setattr(torch.cuda, name, begun)
    card = device.CudaDevice(0)
    card.reset_peak()
    card.synchronize()
    card.release()
    assert (card.used_bytes(), card.peak_bytes(), card.reserved_bytes()) == (0, 0, 0)
    assert (card.capacity_bytes(), card.free_bytes()) == (15_600, 10_600)
    assert card.title() == "Tesla T4"
    assert card.native_dtypes() == ("float32", "float16")
    assert card.memory_owners().external["context"] == 0
    wear = card.memory_stats()
    assert (wear.allocated_bytes, wear.largest_block_bytes) == (0, 10_600)
    began = card.stamp()
    assert 0 <= card.seconds(card.stamp()) - card.seconds(began) < 1


def test_a_card_is_asked_of_nvml_by_what_cuda_numbers_it(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.uuids, nvml.names = ["GPU-aaaa", "GPU-bbbb"], ["Tesla T4", "Tesla T4"]
    monkeypatch.setenv(visible.VISIBLE_VARIABLE, "1")
    card = device.CudaDevice(0)
    for ask in (card.external_bytes, card.energy_j, card.other_processes, card.throttle_reasons):
        nvml_module._handle_of.cache_clear()
        nvml.looked_up.clear()
        ask()
        assert set(nvml.looked_up) == {"GPU-bbbb"}
    with pytest.raises(UnavailableError, match=r"shows 1 GPUs here, and none is cuda:1"):
        nvml_module.nvml_memory(1)


def test_emulated_bfloat16_is_refused(nvml: FakeNvml) -> None:
    t4 = device.CudaDevice(0)
    assert t4.capability == (7, 5)
    with pytest.raises(UnavailableError, match="no bfloat16 in hardware"):
        t4.check_dtype("bfloat16")
    t4.check_dtype("float16")


def test_a_card_is_recognised_by_name_and_size(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    t4 = device.CudaDevice(0)
    assert device.card_of(t4) is None  # 16,000 bytes are no T4's
    monkeypatch.setattr(device.CudaDevice, "_capacity_bytes", lambda self: int(14.56 * 2**30))
    found = device.card_of(t4)
    assert found is not None
    assert found.name == "t4"
    assert device.planned_card(t4) is found
    assert device.card_of(device.CpuDevice()) is None
    assert device.planned_card(device.CpuDevice()) is catalog.HOST


def test_an_unknown_card_is_planned_by_its_own_numbers(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice of a divided card is one: a prediction is made for it, and never for the CPU."""
    own = visible.Gpu(
        uuid="MIG-1",
        name="NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        capacity_bytes=10 * 2**30,
        capability=(9, 0),
        cuda_version=13_000,
    )
    monkeypatch.setattr(device.CudaDevice, "gpu", own)
    part = device.CudaDevice(0)
    assert device.card_of(part) is None
    card = device.planned_card(part)
    assert (card.usable_bytes, card.compute_capability) == (10 * 2**30, (9, 0))
    pair = (catalog.whisper("base"), catalog.voxtral("mini-3b"))
    plan = planner.plan_pair(card, *pair, backend="transformers", dtype="float16")
    h100 = planner.plan_pair(catalog.card("h100"), *pair, backend="transformers", dtype="float16")
    assert plan.total == h100.total  # with its context, slack and kernels
    assert plan.capacity_bytes == 10 * 2**30
    part.set_memory_limit(8 * 2**30)
    assert device.planned_card(part).usable_bytes == 8 * 2**30


@pytest.mark.gpu
def test_cuda_reads_a_known_allocation() -> None:
    import torch

    from hybridlab.profiling.memory_profiler import MemoryProfiler

    gpu = device.resolve_device("cuda")
    size = 256 * 2**20
    with MemoryProfiler(gpu) as meter:
        with meter.region("load") as region:
            kept = torch.zeros(size, dtype=torch.uint8, device=gpu.name)
        assert region.peak_above_start_bytes == pytest.approx(size, rel=0.01)
        assert kept.numel() == size
    assert gpu.free_bytes() == pytest.approx(torch.cuda.mem_get_info(gpu.name)[0], abs=32 * MIB)
    assert gpu.capacity_bytes() == pytest.approx(torch.cuda.mem_get_info(gpu.name)[1], abs=MIB)
    assert gpu.title() == torch.cuda.get_device_name(gpu.name)
    assert gpu.capability == torch.cuda.get_device_capability(gpu.name)
    begin = gpu.stamp()
    torch.cuda._sleep(10_000_000)
    assert gpu.seconds(gpu.stamp()) > gpu.seconds(begin)


@pytest.mark.gpu
def test_what_no_owner_has_is_what_the_driver_calls_free() -> None:
    """At a peak as well, with the slack of that moment: nothing is given back in between."""
    import torch

    from hybridlab.profiling.memory_profiler import MemoryProfiler

    gpu = device.resolve_device("cuda")
    capacity = gpu.capacity_bytes()
    gpu.release()
    before = (gpu.reserved_bytes() or 0) - gpu.used_bytes()  # beside what other tests have left
    with MemoryProfiler(gpu) as meter:
        with meter.region("load"):
            kept = torch.zeros(64 * MIB, dtype=torch.uint8, device=gpu.name)
        meter.settle()
        with meter.region("request") as region:
            torch.zeros(301 * MIB, dtype=torch.uint8, device=gpu.name)
        driver, total = torch.cuda.mem_get_info()
        peak = region.peak_account
        end = region.ended
        ended = end.account.free_bytes(capacity_bytes=capacity, used_bytes=end.used_bytes)
        at_peak = peak.free_bytes(capacity_bytes=capacity, used_bytes=region.peak_bytes)
        assert at_peak == ended == gpu.free_bytes()
        assert ended == pytest.approx(driver, abs=32 * MIB)  # NVML and CUDA may round apart
        assert capacity == pytest.approx(total, abs=MIB)
        assert peak.external[SLACK] - before < 4 * MIB
        assert end.account.external[SLACK] - before > 300 * MIB
        assert region.peak_bytes - meter.process_baseline_bytes >= 365 * MIB
    assert kept.numel() == 64 * MIB


@pytest.mark.gpu
def test_workspaces_of_cublas_have_an_owner() -> None:
    import torch

    gpu = device.resolve_device("cuda")
    torch._C._cuda_clearCublasWorkspaces()
    assert gpu.memory_owners().in_process["workspaces"] == 0
    one = torch.zeros(64, 64, device=gpu.name)
    _ = one @ one
    size = torch.backends.cuda.cublas_workspace_size()
    assert gpu.memory_owners().in_process["workspaces"] == size
    with torch.cuda.stream(torch.cuda.Stream()):
        _ = one @ one
    torch.cuda.synchronize()
    assert gpu.memory_owners().in_process["workspaces"] == 2 * size


@pytest.mark.gpu
def test_a_ballast_makes_a_real_card_run_out_of_memory_and_its_owners_add_up() -> None:
    import torch

    from hybridlab.devices.memory_limit import limit_memory
    from hybridlab.devices.out_of_memory import out_of_memory

    gpu = device.resolve_device("cuda")
    kept = torch.zeros(64 * MIB, dtype=torch.uint8, device=gpu.name)
    with limit_memory(gpu, 2 * 2**30):
        assert gpu.capacity_bytes() == 2 * 2**30
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch.empty(3 * 2**30, dtype=torch.uint8, device=gpu.name)
        assert out_of_memory(caught.value) is not None
        free = gpu.memory_owners().free_bytes(
            capacity_bytes=gpu.capacity_bytes(), used_bytes=gpu.used_bytes()
        )
        assert free == gpu.free_bytes()
        assert free == pytest.approx(torch.cuda.mem_get_info()[0], abs=32 * MIB)
    assert torch.empty(3 * 2**30, dtype=torch.uint8, device=gpu.name).numel() == 3 * 2**30
    assert kept.numel() == 64 * MIB


def test_memory_of_a_child_that_nobody_counts_is_seen() -> None:
    """A process that a case starts by itself: 200 MiB, outside of the case's own bytes."""
    n_bytes = 200 * MIB
    hold = f"kept = bytearray(b'x') * {n_bytes}; print('held', flush=True); input()"
    cpu = CpuDevice()
    before = cpu.memory_owners().external[UNTRACKED]
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        used = cpu.used_bytes()
        earlier = cpu.total_used_bytes().value or 0.0
        outside = cpu.memory_owners().external
        later = cpu.total_used_bytes().value or 0.0
        assert outside[UNTRACKED] - before == pytest.approx(n_bytes, abs=32 * MIB)
        # whoever else is at work on this machine takes and frees memory between two readings
        total = min(max(sum(outside.values()) + used, min(earlier, later)), max(earlier, later))
        assert sum(outside.values()) == pytest.approx(total - used, abs=64 * MIB)
        cpu.track_process("child", child.pid, lambda: None)
        assert cpu.memory_owners().external[UNTRACKED] == pytest.approx(before, abs=MIB)
        child.communicate("\n")
