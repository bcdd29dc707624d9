"""`hybridlab doctor`: what this machine can and cannot do, and the one command that changes what is
missing. Each check imports what it needs when it runs, since that may be what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, app, print_json
from hybridlab.errors import HybridlabError, UnavailableError
from hybridlab.units import GB, format_bytes, format_decimal_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from hybridlab.config.params import Params

STATE_STYLES = {"ok": "green", "limited": "yellow", "broken": "bold red"}
INSTALL = "pip install --editable ."
INSTALL_CUBLAS = (
    "pip install nvidia-cublas-cu12 && export LD_LIBRARY_PATH=$(python -c "
    "'import nvidia.cublas.lib as lib; print(*lib.__path__)')"
)
DEMO_PRESET = "pocket"
RUN_DEMO = f"hybridlab run params/{DEMO_PRESET}.yaml"
#: Host memory that the demo may use (`memory_budget_gb` of params/pocket.yaml and its processes).
DEMO_BYTES = 8 * GB
#: With less the pocket pair itself does not run beside its notebook.
LEAST_BYTES = int(2.5 * GB)
QUOTA = Path("/sys/fs/cgroup/cpu.max")
NEEDED = (
    *("torch", "transformers", "openai-whisper", "mistral-common", "nvidia-ml-py"),
    *("papermill", "jupyterlab", "ipykernel", "ipywidgets", "nbconvert"),
    *("pandas", "pyarrow", "soundfile", "av", "soxr", "jiwer", "seaborn"),
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

    @property
    def state(self) -> str:
        if not self.impact:
            return "ok"
        return "broken" if self.fatal else "limited"


def machine() -> Iterator[CheckResult]:
    """The operating system, cores of this process, and a container's quota of them."""
    from hybridlab.config.preset_files import on_colab
    from hybridlab.devices import system_info

    found, cores = system_info.machine(), len(os.sched_getaffinity(0))
    quota, period = QUOTA.read_text(encoding="ascii").split() if QUOTA.is_file() else ("max", "1")
    limit = "" if quota == "max" else f" ({int(quota) / int(period):g} by the container's quota)"
    colab = ", Colab" if on_colab() else ""
    detail = f"{found['system']}{colab}, {cores} cores{limit}, {found['processor']}"
    yield CheckResult("machine", detail)


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
        budget_gb = max(0.5, (free - LEAST_BYTES) / GB)
        fix = f"{RUN_DEMO} -p memory_budget_gb={budget_gb:.1f}"
    yield CheckResult("host memory", detail, impact, fix, fatal=free < LEAST_BYTES)


def disk() -> Iterator[CheckResult]:
    """Room where runs are written."""
    from hybridlab.results.run_folder import LEAST_FREE_DISK_BYTES, default_outputs

    folder = default_outputs()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{format_decimal_bytes(free)} free at {existing}"
    if free < LEAST_FREE_DISK_BYTES:
        impact = f"a run needs {format_decimal_bytes(LEAST_FREE_DISK_BYTES)}"
        fix = f"{RUN_DEMO} --output /a/larger/disk/run"
        yield CheckResult("disk", detail, impact, fix, fatal=True)
    else:
        yield CheckResult("disk", detail)


def gpu() -> Iterator[CheckResult]:
    """What CUDA shows, and what the driver says through NVML. Importing torch takes seconds."""
    from hybridlab.devices import CudaDevice, nvml, visible

    lack, facts = visible.cuda_lack(), nvml.nvml_facts()
    if not lack:
        yield CheckResult("GPU", f"{CudaDevice(0).title()}: {nvml.fact_words(facts)}")
    elif facts.get("driver") is None:
        impact = "everything runs on the CPU; what a card would hold can be predicted"
        yield CheckResult("GPU", f"none ({facts['reason']})", impact, "hybridlab plan --card t4")
    else:
        detail = f"driver {facts['driver']} is there, but torch cannot use it: {lack}"
        fix = "pip install --force-reinstall torch"
        yield CheckResult("GPU", detail, "everything runs on the CPU", fix)


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
    if reason:
        yield CheckResult(name, reason, OPTIONAL["faster-whisper"][0], INSTALL_CUBLAS)
    else:
        yield CheckResult(name, "transcribes on it as on the host")


def kernel() -> Iterator[CheckResult]:
    """Jupyter's kernel `python3`, which papermill starts for every notebook."""
    from jupyter_client.kernelspec import KernelSpecManager

    folder = KernelSpecManager().find_kernel_specs().get("python3")
    if folder is None:
        fix = "python -m ipykernel install --user --name python3"
        impact = "papermill cannot start a notebook"
        yield CheckResult("Jupyter kernel", "no kernel python3", impact, fix, fatal=True)
    else:
        yield CheckResult("Jupyter kernel", f"python3 in {folder}")


def notebooks() -> Iterator[CheckResult]:
    """The notebooks, and which of them are the reader's own."""
    from hybridlab.config.notebook_registry import notebooks_dir, own_notebooks

    try:
        folder = notebooks_dir()
        own = ", ".join(own_notebooks(folder))
        yield CheckResult("notebooks", f"{folder}{f'; your own: {own}' if own else ''}")
    except HybridlabError as error:
        impact = "hybridlab run has nothing to run; plan, fit and verdict work"
        (url,) = metadata("hybridlab").get_all("Project-URL") or ["Repository, of the project"]
        fix = f"git clone {url.rpartition(', ')[2]}"
        yield CheckResult("notebooks", str(error), impact, fix, fatal=True)


def preset_results() -> Iterator[CheckResult]:
    """Every preset: whether its pair can run on its device here, as predicted."""
    from hybridlab.config.preset_files import preset_values, presets

    for name in presets():
        yield preset_result(name, preset_values(name))


def preset_result(name: str, values: Mapping[str, Any]) -> CheckResult:
    """Of a preset with these values."""
    from hybridlab.config.params import NOTEBOOKS, Params, split
    from hybridlab.config.preset_files import NONE

    try:
        notebooks = split({"preset": NONE, **values}, NOTEBOOKS.values())  # as the runner would
        own = {n: v for n, v in values.items() if n in Params.model_fields}
        detail = _fits_here(Params.from_mapping({"preset": NONE, **own}))
    except HybridlabError as error:
        demo = name == DEMO_PRESET
        fix = INSTALL if demo else RUN_DEMO
        return CheckResult(f"preset {name}", "cannot run here", str(error), fix, fatal=demo)
    lack = _lacking_weights(notebooks.values())
    return CheckResult(f"preset {name}", detail, lack, f"hybridlab fetch {name}" if lack else "")


def _lacking_weights(notebooks: Iterable[Params]) -> str:
    """How much a run of these would first have to fetch, and what is free for it; '' for nothing.
    No network is asked."""
    from huggingface_hub import constants

    from hybridlab.models.pair import specs_of
    from hybridlab.models.provision import estimated_missing_bytes, free_bytes

    specs = [spec for params in notebooks for spec in specs_of(params)]
    if not (n_bytes := estimated_missing_bytes(specs)):
        return ""
    cache = Path(constants.HF_HUB_CACHE)
    free = format_decimal_bytes(free_bytes(cache))
    return (
        f"about {format_decimal_bytes(n_bytes)} of weights are still to fetch; {free} are free at "
        f"{cache}"
    )


def _fits_here(params: Any) -> str:
    """Where the pair runs and what it takes there; `UnavailableError` where it cannot."""
    from hybridlab import catalog, planner
    from hybridlab.catalog.device_names import simulated_card
    from hybridlab.devices import planned_card, resolve_device
    from hybridlab.devices.cpu import check_host_memory
    from hybridlab.models.pair import pair_of
    from hybridlab.simulation import build

    device = resolve_device(params.device)
    pair = pair_of(params, device)
    plan = planner.plan_pair(
        planned_card(device),
        catalog.whisper(pair.asr.model),
        catalog.voxtral(pair.llm.model),
        backend=pair.asr.backend,
        dtype=pair.asr.dtype,
        llm_dtype=pair.llm.dtype,
        capacity_bytes=device.capacity_bytes(),
    )
    if plan.total_bytes > (free := device.free_bytes()):
        needed = format_bytes(plan.total_bytes)
        raise UnavailableError(
            f"its pair takes {needed} and {device.name} has {format_bytes(free)} free"
        )
    check_host_memory(plan.host_bytes, device, fix="end other programs first")
    where = "the CPU" if device.is_host else "the GPU"
    if simulated_card(params.device) is not None:
        build.compiler()
        where = f"an {device.title()}"
    sources = dict.fromkeys([params.llm_weights, params.asr_weights])
    return (
        f"{plan.llm_model} and {plan.asr_model} ({', '.join(sources)} weights) on {where}, "
        f"{format_bytes(plan.total_bytes)} predicted"
    )


CHECKS: dict[str, Callable[[], Iterator[CheckResult]]] = {
    "machine": machine,
    "packages": packages,
    "host memory": memory,
    "disk": disk,
    "GPU": gpu,
    "faster-whisper": faster_whisper,
    "Jupyter kernel": kernel,
    "notebooks": notebooks,
    "presets": preset_results,
}
#: Without which the demo is not known to run.
NEEDED_CHECKS = ("packages", "Jupyter kernel", "notebooks", "presets")


def run_checks() -> Iterator[CheckResult]:
    """Every result as it comes. A check that fails is a result with the fault in it."""
    for name, check in CHECKS.items():
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


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do, and what to type for the rest."""
    watched = printing.console(stderr=True)
    status = "looking at this machine; importing torch takes some seconds"
    with watched.status(status) if watched.is_terminal else nullcontext():
        results = list(run_checks())
    runs = all(result.state != "broken" for result in results)
    if as_json:
        checks = [{"state": result.state, **asdict(result)} for result in results]
        print_json({"demo": runs, "checks": checks})
    else:
        console = printing.console()
        console.print(result_table(results))
        console.print(printing.styled(summary(results), "bold"))
    if not runs:
        raise typer.Exit(1)


def result_table(results: Sequence[CheckResult]) -> Table:
    """A row for each result, with impact and fix below what was found; results that differ in their
    names alone share a row."""
    from rich.text import Text

    table = printing.table(("state", "what", "found"))
    alike: dict[CheckResult, list[str]] = {}
    for result in results:
        same = replace(result, name="" if result.impact else result.name)
        alike.setdefault(same, []).append(result.name)
    for result, names in alike.items():
        state = printing.styled(result.state, STATE_STYLES[result.state])
        found = Text(result.detail)
        if result.impact:
            found.append(f"\n{result.impact}", "dim").append(f"\n$ {result.fix}", "bold")
        table.add_row(state, "\n".join(names), found)
    return table


def summary(results: Sequence[CheckResult]) -> str:
    """All results in a sentence."""
    broken, limited = ([r.state for r in results].count(state) for state in ("broken", "limited"))
    if broken:
        return f"The demo cannot run here: {broken} of {len(results)} checks failed."
    lack = f"{limited} of {len(results)} checks found something" if limited else "nothing is"
    return f"The demo runs here; {lack} missing."
