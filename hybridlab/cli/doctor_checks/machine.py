"""Memory, disk, processors, the GPU and its driver."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from hybridlab.cli.doctor_checks.finding import Finding
from hybridlab.config.colab import on_colab
from hybridlab.devices import CpuDevice, CudaDevice
from hybridlab.devices.nvml import fact_words, nvml_facts
from hybridlab.devices.system_info import machine
from hybridlab.devices.visible import cuda_lack
from hybridlab.processes.mps import PROGRAM as MPS_PROGRAM
from hybridlab.results import records
from hybridlab.units import GB, MIB, format_bytes

#: Host memory that the demo may use (`memory_budget_gb` of params/pocket.yaml and its processes).
DEMO_BYTES = 8 * GB
#: With less the pocket pair itself does not run beside its notebook.
LEAST_BYTES = int(2.5 * GB)
#: Disk that a comfortable run leaves free, its page and figures included.
ROOMY_DISK_BYTES = 2 * GB
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def place() -> Finding:
    """The operating system, and whether this is a Colab machine."""
    found = machine()
    colab = "; a Colab machine" if on_colab() else ""
    return Finding(about="system", says=f"{found['system']}{colab}")


def memory(free_bytes: int | None = None) -> Finding:
    """Free host memory, container limits included."""
    device = CpuDevice()
    free = device.free_bytes() if free_bytes is None else free_bytes
    says = f"{format_bytes(free)} free of {format_bytes(device.capacity_bytes())}"
    if free >= DEMO_BYTES:
        return Finding(about="host memory", says=says)
    budget = max(0.5, (free - LEAST_BYTES) / GB)
    mend = f"hybridlab run params/pocket.yaml -p memory_budget_gb={budget:.1f}"
    if free >= LEAST_BYTES:
        means = "the larger Whispers of notebook 02 are left out, each with its reason"
        return Finding(about="host memory", state="lacks", says=says, means=means, mend=mend)
    means = "the pocket pair has no room beside its notebook: end other programs first"
    return Finding(about="host memory", state="broken", says=says, means=means, mend="free -h")


def limits() -> Finding:
    """The kernel's limit of a process' private memory."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY:
        return Finding(about="memory limit", says="no RLIMIT_DATA")
    return Finding(
        about="memory limit",
        state="lacks" if soft >= LEAST_BYTES else "broken",
        says=f"RLIMIT_DATA is {format_bytes(soft)}",
        means="a case that needs more ends as out of memory, whatever the machine has",
        mend="ulimit -d unlimited",
    )


def disk(folder: Path | None = None) -> Finding:
    """Room where runs are written."""
    folder = folder or records.default_outputs()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    says = f"{format_bytes(free)} free at {existing}"
    if free >= ROOMY_DISK_BYTES:
        return Finding(about="disk", says=says)
    return Finding(
        about="disk",
        state="lacks" if free >= records.LEAST_FREE_DISK_BYTES else "broken",
        says=says,
        means=f"a run needs {records.LEAST_FREE_DISK_BYTES // MIB} MiB, released weights gigabytes",
        mend="hybridlab run params/pocket.yaml --output /a/larger/disk/run",
    )


def processors() -> Finding:
    """Cores of this process, and a container's quota of them."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota_cores()
    says = f"{cores} cores, {machine()['processor']}"
    if quota is not None and quota < cores:
        says += f"; the container may use {quota:g} of them"
    return Finding(about="processors", says=says)


def _quota_cores() -> float | None:
    """Cores' worth of time that the container gets; None without a quota."""
    if not QUOTA.is_file():
        return None
    quota, period = QUOTA.read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def gpu() -> list[Finding]:
    """What CUDA shows, and the driver's word by NVML: a card that torch cannot use is a lack of
    torch's. Importing torch takes seconds."""
    lack = cuda_lack()
    if not lack:
        return [_card(), _mps()]
    facts = nvml_facts()
    driver = facts.get("driver")
    if driver is None:
        return [_no_gpu(str(facts["reason"]))]
    return [
        Finding(
            about="GPU",
            state="lacks",
            says=f"driver {driver} is there, but torch cannot use it: {lack}",
            means="everything runs on the CPU",
            mend="pip install --force-reinstall torch",
        )
    ]


def _card() -> Finding:
    card = CudaDevice(0)
    return Finding(about="GPU", says=f"{card.title()}: {fact_words(nvml_facts(card.index))}")


def _no_gpu(reason: str) -> Finding:
    return Finding(
        about="GPU",
        state="lacks",
        says=f"none ({reason})",
        means="everything runs on the CPU; what a card would hold can be predicted",
        mend="hybridlab plan --card t4",
    )


def _mps() -> Finding:
    path = shutil.which(MPS_PROGRAM)
    if path is not None:
        return Finding(about="NVIDIA MPS", says=path)
    return Finding(
        about="NVIDIA MPS",
        state="lacks",
        says=f"no {MPS_PROGRAM}",
        means="the variant processes-mps is skipped",
        mend="hybridlab run params/colab-t4.yaml -p parallel_variants='[threads, processes]'",
    )
