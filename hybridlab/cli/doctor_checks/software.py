"""Packages, Jupyter's kernel, the notebooks. No torch."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from hybridlab.cli.doctor_checks.base import CheckResult
from hybridlab.devices.nvml import nvml_facts
from hybridlab.errors import HybridlabError

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


def packages() -> list[CheckResult]:
    """All that are there in one row, and a row for each that is missing."""
    found = {name: _version(name) for name in (*NEEDED, *OPTIONAL)}
    there = [f"{name} {number}" for name, number in found.items() if number is not None]
    results = [CheckResult("packages", ", ".join([f"Python {platform.python_version()}", *there]))]
    for name in [name for name, number in found.items() if number is None]:
        if name in OPTIONAL:
            impact, extra = OPTIONAL[name]
            fix = f"pip install 'hybridlab[{extra}]'"
            results.append(CheckResult(name, "not installed", impact, fix))
        else:
            impact, fix = "the demo does not run without it", "pip install --editable ."
            results.append(CheckResult(name, "not installed", impact, fix, fatal=True))
    return results


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def faster_whisper() -> list[CheckResult]:
    """Whether it computes on the card, where both are there: it transcribes a clip, since the
    package may be there and find no cuBLAS, or be too new for the driver and transcribe nothing."""
    if _version("faster-whisper") is None or nvml_facts().get("driver") is None:
        return []
    from hybridlab.models.whisper_faster import unusable_on_card

    name, reason = "faster-whisper on the card", unusable_on_card()
    if not reason:
        return [CheckResult(name, "transcribes on it as on the host")]
    fix = (
        "pip install nvidia-cublas-cu12 && export LD_LIBRARY_PATH=$(python -c "
        "'import nvidia.cublas.lib as lib; print(*lib.__path__)')"
    )
    return [CheckResult(name, reason, OPTIONAL["faster-whisper"][0], fix)]


def kernel() -> CheckResult:
    """Jupyter's kernel `python3`, which papermill starts for every notebook."""
    from jupyter_client.kernelspec import KernelSpecManager

    folder = KernelSpecManager().find_kernel_specs().get("python3")
    if folder is not None:
        return CheckResult("Jupyter kernel", f"python3 in {folder}")
    return CheckResult(
        "Jupyter kernel",
        "no kernel python3",
        impact="papermill cannot start a notebook",
        fix="python -m ipykernel install --user --name python3",
        fatal=True,
    )


def notebooks() -> CheckResult:
    """The notebooks, and which of them are the reader's own."""
    from hybridlab.config.notebook_registry import notebooks_dir, own_notebooks

    try:
        folder = notebooks_dir()
        own = own_notebooks(folder)
    except HybridlabError as error:
        impact = "hybridlab run has nothing to run; plan, fit and verdict work"
        fix = "git clone https://github.com/hybridlab/hybridlab"
        return CheckResult("notebooks", str(error), impact, fix, fatal=True)
    also = f"; your own: {', '.join(own)}" if own else ""
    return CheckResult("notebooks", f"{folder}{also}")
