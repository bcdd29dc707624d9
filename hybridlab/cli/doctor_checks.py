"""What `hybridlab doctor` looks at, and the one command that changes what is missing.

Each check imports what it needs when it runs, since that may be what is missing.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hybridlab.errors import HybridlabError, UnavailableError
from hybridlab.units import GB, MIB, format_bytes

if TYPE_CHECKING:
    from hybridlab.devices import Device
    from hybridlab.planner import PairPlan

State = Literal["ok", "limited", "broken"]
INSTALL = "pip install --editable ."
DEMO_PRESET = "pocket"
#: Host memory that the demo may use (`memory_budget_gb` of params/pocket.yaml and its processes).
DEMO_BYTES = 8 * GB
#: With less the pocket pair itself does not run beside its notebook.
LEAST_BYTES = int(2.5 * GB)
#: Disk that a comfortable run leaves free, its page and figures included.
ROOMY_DISK_BYTES = 2 * GB
QUOTA = Path("/sys/fs/cgroup/cpu.max")
NEEDED = (
    *("torch", "transformers", "openai-whisper", "mistral-common", "nvidia-ml-py"),
    *("papermill", "jupyterlab", "ipykernel", "ipywidgets", "nbconvert"),
    *("pandas", "pyarrow", "soundfile", "soxr", "jiwer", "seaborn"),
)
#: Package: what is skipped without it, and the extra that installs it.
OPTIONAL = {
    "faster-whisper": ("the backend faster-whisper and parallel/ctranslate2 are skipped", "ct2"),
    "bitsandbytes": ("Voxtral in int8 and int4 is skipped (both need a GPU)", "quant"),
    "fastapi": ("hybridlab serve does not start", "serve"),
}


@dataclass(frozen=True)
class CheckResult:
    """One thing looked at. Where something is missing, `impact` says what does not work without it
    and `fix` is one command; `fatal` where the demo cannot run then."""

    name: str
    detail: str
    impact: str = ""
    fix: str = ""
    fatal: bool = False

    def __post_init__(self) -> None:
        if bool(self.impact) != bool(self.fix) or (self.fatal and not self.impact):
            raise ValueError(f"{self.name}: an impact and a fix come together")

    @property
    def state(self) -> State:
        if not self.impact:
            return "ok"
        return "broken" if self.fatal else "limited"

    def as_dict(self) -> dict[str, str | bool]:
        return {"state": self.state, **asdict(self)}


# ---------------------------------------------------------------------------------------- machine


def machine() -> Iterator[CheckResult]:
    """The operating system, cores of this process, and a container's quota of them."""
    from hybridlab.config.colab import on_colab
    from hybridlab.devices import system_info

    found, cores = system_info.machine(), len(os.sched_getaffinity(0))
    quota = _quota_cores()
    limited = f" ({quota:g} by the container's quota)" if quota and quota < cores else ""
    colab = ", Colab" if on_colab() else ""
    detail = f"{found['system']}{colab}, {cores} cores{limited}, {found['processor']}"
    yield CheckResult("machine", detail)


def _quota_cores() -> float | None:
    """Cores' worth of time that the container gets; None without a quota."""
    if not QUOTA.is_file():
        return None
    quota, period = QUOTA.read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def memory() -> Iterator[CheckResult]:
    """Free host memory, container limits included."""
    from hybridlab.devices import CpuDevice

    free = CpuDevice().free_bytes()
    detail = f"{format_bytes(free)} free of {format_bytes(CpuDevice().capacity_bytes())}"
    impact = fix = ""
    if free < LEAST_BYTES:
        impact = "the pocket pair has no room beside its notebook: end other programs first"
        fix = "free -h"
    elif free < DEMO_BYTES:
        impact = "the larger Whispers of notebook 02 are left out, each with its reason"
        budget = max(0.5, (free - LEAST_BYTES) / GB)
        fix = f"hybridlab run params/pocket.yaml -p memory_budget_gb={budget:.1f}"
    yield CheckResult("host memory", detail, impact, fix, fatal=free < LEAST_BYTES)


def disk() -> Iterator[CheckResult]:
    """Room where runs are written."""
    from hybridlab.results.run_folder import LEAST_FREE_DISK_BYTES, default_outputs

    folder = default_outputs()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    impact = fix = ""
    if free < ROOMY_DISK_BYTES:
        impact = f"a run needs {LEAST_FREE_DISK_BYTES // MIB} MiB, released weights gigabytes"
        fix = "hybridlab run params/pocket.yaml --output /a/larger/disk/run"
    detail = f"{format_bytes(free)} free at {existing}"
    yield CheckResult("disk", detail, impact, fix, fatal=free < LEAST_FREE_DISK_BYTES)


def gpu() -> Iterator[CheckResult]:
    """What CUDA shows, and what the driver says through NVML. Importing torch takes seconds."""
    from hybridlab.devices import CudaDevice, nvml, visible

    lack, facts = visible.cuda_lack(), nvml.nvml_facts()
    if not lack:
        detail = f"{CudaDevice(0).title()}: {nvml.fact_words(facts)}"
        yield CheckResult("GPU", detail)
    elif facts.get("driver") is None:
        impact = "everything runs on the CPU; what a card would hold can be predicted"
        yield CheckResult("GPU", f"none ({facts['reason']})", impact, "hybridlab plan --card t4")
    else:
        detail = f"driver {facts['driver']} is there, but torch cannot use it: {lack}"
        fix = "pip install --force-reinstall torch"
        yield CheckResult("GPU", detail, "everything runs on the CPU", fix)


# --------------------------------------------------------------------------------------- software


def packages() -> Iterator[CheckResult]:
    """All that are there in one row, and a row for each that is missing."""
    found = {name: _version(name) for name in (*NEEDED, *OPTIONAL)}
    there = [f"{name} {number}" for name, number in found.items() if number is not None]
    yield CheckResult("packages", ", ".join([f"Python {platform.python_version()}", *there]))
    for name in (name for name, number in found.items() if number is None):
        impact, extra = OPTIONAL.get(name, ("the demo does not run without it", ""))
        fix = f"pip install 'hybridlab[{extra}]'" if extra else INSTALL
        yield CheckResult(name, "not installed", impact, fix, fatal=name in NEEDED)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def faster_whisper() -> Iterator[CheckResult]:
    """Whether it computes on the card, where both are there: it transcribes a clip, since the
    package may be there and find no cuBLAS, or be too new for the driver and transcribe nothing."""
    from hybridlab.devices.nvml import nvml_facts

    if _version("faster-whisper") is None or nvml_facts().get("driver") is None:
        return
    from hybridlab.models.whisper_faster import unusable_on_card

    name, reason = "faster-whisper on the card", unusable_on_card()
    if not reason:
        yield CheckResult(name, "transcribes on it as on the host")
        return
    fix = (
        "pip install nvidia-cublas-cu12 && export LD_LIBRARY_PATH=$(python -c "
        "'import nvidia.cublas.lib as lib; print(*lib.__path__)')"
    )
    yield CheckResult(name, reason, OPTIONAL["faster-whisper"][0], fix)


def kernel() -> Iterator[CheckResult]:
    """Jupyter's kernel `python3`, which papermill starts for every notebook."""
    from jupyter_client.kernelspec import KernelSpecManager

    folder = KernelSpecManager().find_kernel_specs().get("python3")
    if folder is not None:
        yield CheckResult("Jupyter kernel", f"python3 in {folder}")
        return
    impact = "papermill cannot start a notebook"
    fix = "python -m ipykernel install --user --name python3"
    yield CheckResult("Jupyter kernel", "no kernel python3", impact, fix, fatal=True)


def notebooks() -> Iterator[CheckResult]:
    """The notebooks, and which of them are the reader's own."""
    from hybridlab.config.notebook_registry import notebooks_dir, own_notebooks

    try:
        folder = notebooks_dir()
        own = own_notebooks(folder)
    except HybridlabError as error:
        impact = "hybridlab run has nothing to run; plan, fit and verdict work"
        fix = "git clone https://github.com/hybridlab/hybridlab"
        yield CheckResult("notebooks", str(error), impact, fix, fatal=True)
        return
    also = f"; your own: {', '.join(own)}" if own else ""
    yield CheckResult("notebooks", f"{folder}{also}")


# ---------------------------------------------------------------------------- weights and presets


def hub() -> Iterator[CheckResult]:
    """What the hub's cache holds of the catalog, and whether a token is at hand. No network."""
    from huggingface_hub import constants

    from hybridlab import catalog
    from hybridlab.models.hub import TOKEN_VARIABLE, cached

    ids = [model.hub_id for model in catalog.VOXTRALS.values()]
    ids += [model.hub_id for model in catalog.WHISPERS.values()]
    released = [repository for repository in ids if repository]
    held = [repository for repository in released if cached(repository)]
    token = TOKEN_VARIABLE in os.environ or Path(constants.HF_TOKEN_PATH).is_file()
    detail = (
        f"cached: {', '.join(held) or 'none of the released models'}; "
        f"{'a' if token else 'no'} token (none of them needs one)"
    )
    if not constants.HF_HUB_OFFLINE or len(held) == len(released):
        yield CheckResult("hub", detail)
        return
    impact = "released weights that are not cached cannot be fetched"
    yield CheckResult("hub", f"{detail}; HF_HUB_OFFLINE is set", impact, "unset HF_HUB_OFFLINE")


def preset_results() -> Iterator[CheckResult]:
    """Every preset: whether its pair can run on its device here, as predicted."""
    from hybridlab.config.preset_files import PRESETS_DIR, presets, read_yaml

    for name in presets(PRESETS_DIR):
        yield preset_result(name, read_yaml(PRESETS_DIR / f"{name}.yaml"))


def preset_result(name: str, values: Mapping[str, Any]) -> CheckResult:
    from hybridlab.config.params import NOTEBOOKS, Params, split
    from hybridlab.config.preset_files import NONE

    try:
        split({"preset": NONE, **values}, NOTEBOOKS.values())  # as the runner would
        own = {n: v for n, v in values.items() if n in Params.model_fields}
        detail = _fits_here(Params.from_mapping({"preset": NONE, **own}))
    except HybridlabError as error:
        demo = name == DEMO_PRESET
        fix = INSTALL if demo else f"hybridlab run params/{DEMO_PRESET}.yaml"
        return CheckResult(f"preset {name}", "cannot run here", str(error), fix, fatal=demo)
    return CheckResult(f"preset {name}", detail)


def _fits_here(params: Any) -> str:
    """Where the pair runs and what it takes there; `UnavailableError` where it cannot."""
    from hybridlab import catalog, planner
    from hybridlab.catalog.device_names import simulated_card
    from hybridlab.devices import card_of, resolve_device
    from hybridlab.models.pair import pair_of
    from hybridlab.simulation import build

    device = resolve_device(params.device)
    pair = pair_of(params, device)
    plan = planner.plan_pair(
        card_of(device) or catalog.HOST,
        catalog.whisper(pair.asr.model),
        catalog.voxtral(pair.llm.model),
        backend=pair.asr.backend,
        dtype=pair.asr.dtype,
        llm_dtype=pair.llm.dtype,
        capacity_bytes=device.capacity_bytes(),
    )
    _check_room(plan, device)
    where = "the CPU" if device.is_host else "the GPU"
    if simulated_card(params.device) is not None:
        build.compiler()
        where = f"an {device.title()}"
    sources = dict.fromkeys([params.llm_weights, params.asr_weights])
    return (
        f"{plan.llm_model} and {plan.asr_model} ({', '.join(sources)} weights) on {where}, "
        f"{format_bytes(plan.total_bytes)} predicted"
    )


def _check_room(plan: PairPlan, device: Device) -> None:
    """`UnavailableError` where the device or the host has less free than the pair takes."""
    from hybridlab.devices import CpuDevice

    free, host = device.free_bytes(), CpuDevice().free_bytes()
    if plan.total_bytes > free:
        raise UnavailableError(
            f"its pair takes {format_bytes(plan.total_bytes)} and {device.name} has "
            f"{format_bytes(free)} free"
        )
    if not device.is_host and plan.host_bytes > host:
        raise UnavailableError(
            f"loading takes {format_bytes(plan.host_bytes)} of the host, which has "
            f"{format_bytes(host)} free"
        )


# --------------------------------------------------------------------------------------- all checks

Check = Callable[[], Iterator[CheckResult]]
CHECKS: Mapping[str, Check] = {
    "machine": machine,
    "packages": packages,
    "host memory": memory,
    "disk": disk,
    "GPU": gpu,
    "faster-whisper": faster_whisper,
    "Jupyter kernel": kernel,
    "notebooks": notebooks,
    "hub": hub,
    "presets": preset_results,
}
#: Without which the demo is not known to run.
NEEDED_CHECKS = ("packages", "Jupyter kernel", "notebooks", "presets")


def run_checks(checks: Mapping[str, Check] | None = None) -> Iterator[CheckResult]:
    """Every result as it comes. A check that fails is a result with the fault in it."""
    for name, check in (CHECKS if checks is None else checks).items():
        try:
            yield from check()
        except Exception as error:  # whatever is missing, the other checks still run
            yield CheckResult(
                name,
                f"could not be checked: {type(error).__name__}: {error}",
                impact="something that it needs is missing or damaged",
                fix=INSTALL,
                fatal=name in NEEDED_CHECKS,
            )


def demo_runs(results: Sequence[CheckResult]) -> bool:
    """Whether nothing is missing that the demo cannot do without."""
    return all(result.state != "broken" for result in results)
