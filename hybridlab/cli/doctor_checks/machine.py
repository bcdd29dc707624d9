"""Processors, memory, disk, the GPU and its driver."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hybridlab.cli.doctor_checks.base import CheckResult
from hybridlab.config.colab import on_colab
from hybridlab.devices import CpuDevice, CudaDevice
from hybridlab.devices.nvml import fact_words, nvml_facts
from hybridlab.devices.system_info import machine
from hybridlab.devices.visible import cuda_lack
from hybridlab.results.run_folder import LEAST_FREE_DISK_BYTES, default_outputs
from hybridlab.units import GB, MIB, format_bytes

#: Host memory that the demo may use (`memory_budget_gb` of params/pocket.yaml and its processes).
DEMO_BYTES = 8 * GB
#: With less the pocket pair itself does not run beside its notebook.
LEAST_BYTES = int(2.5 * GB)
#: Disk that a comfortable run leaves free, its page and figures included.
ROOMY_DISK_BYTES = 2 * GB
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def system() -> CheckResult:
    """The operating system, cores of this process, and a container's quota of them."""
    found, cores = machine(), len(os.sched_getaffinity(0))
    quota = _quota_cores()
    limited = f" ({quota:g} by the container's quota)" if quota and quota < cores else ""
    colab = ", Colab" if on_colab() else ""
    detail = f"{found['system']}{colab}, {cores} cores{limited}, {found['processor']}"
    return CheckResult("machine", detail)


def _quota_cores() -> float | None:
    """Cores' worth of time that the container gets; None without a quota."""
    if not QUOTA.is_file():
        return None
    quota, period = QUOTA.read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def memory(free_bytes: int | None = None) -> CheckResult:
    """Free host memory, container limits included."""
    device = CpuDevice()
    free = device.free_bytes() if free_bytes is None else free_bytes
    detail = f"{format_bytes(free)} free of {format_bytes(device.capacity_bytes())}"
    if free >= DEMO_BYTES:
        return CheckResult("host memory", detail)
    if free < LEAST_BYTES:
        impact = "the pocket pair has no room beside its notebook: end other programs first"
        return CheckResult("host memory", detail, impact, "free -h", fatal=True)
    budget = max(0.5, (free - LEAST_BYTES) / GB)
    return CheckResult(
        "host memory",
        detail,
        impact="the larger Whispers of notebook 02 are left out, each with its reason",
        fix=f"hybridlab run params/pocket.yaml -p memory_budget_gb={budget:.1f}",
    )


def disk(folder: Path | None = None) -> CheckResult:
    """Room where runs are written."""
    folder = folder or default_outputs()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free, least = shutil.disk_usage(existing).free, LEAST_FREE_DISK_BYTES
    detail = f"{format_bytes(free)} free at {existing}"
    if free >= ROOMY_DISK_BYTES:
        return CheckResult("disk", detail)
    return CheckResult(
        "disk",
        detail,
        impact=f"a run needs {least // MIB} MiB, released weights gigabytes",
        fix="hybridlab run params/pocket.yaml --output /a/larger/disk/run",
        fatal=free < least,
    )


def gpu() -> CheckResult:
    """What CUDA shows, and what the driver says through NVML. Importing torch takes seconds."""
    lack = cuda_lack()
    if not lack:
        card = CudaDevice(0)
        detail = f"{card.title()}: {fact_words(nvml_facts(card.index))}"
        return CheckResult("GPU", detail)
    facts = nvml_facts()
    if facts.get("driver") is None:
        impact = "everything runs on the CPU; what a card would hold can be predicted"
        fix = "hybridlab plan --card t4"
        return CheckResult("GPU", f"none ({facts['reason']})", impact, fix)
    detail = f"driver {facts['driver']} is there, but torch cannot use it: {lack}"
    fix = "pip install --force-reinstall torch"
    return CheckResult("GPU", detail, "everything runs on the CPU", fix)
