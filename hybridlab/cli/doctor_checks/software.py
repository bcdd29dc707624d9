"""Python, packages, the kernel, the notebooks, the browser. No torch."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from hybridlab.cli.doctor_checks.finding import Finding, State
from hybridlab.devices.nvml import nvml_facts
from hybridlab.errors import HybridlabError

LEAST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Package:
    """A distribution that something depends on; `extra` installs it where it is optional."""

    name: str
    means: str
    extra: str = ""


NEEDED = tuple(
    Package(name, "the demo does not run without it")
    for name in (
        *("torch", "transformers", "openai-whisper", "mistral-common", "nvidia-ml-py"),
        *("papermill", "jupyterlab", "ipykernel", "ipywidgets", "nbconvert"),
        *("pandas", "pyarrow", "soundfile", "soxr", "jiwer", "seaborn"),
    )
)
OPTIONAL = (
    Package(
        "faster-whisper", "the backend faster-whisper and parallel/ctranslate2 are skipped", "ct2"
    ),
    Package("bitsandbytes", "Voxtral in int8 and int4 is skipped (both need a GPU)", "quant"),
)


def python(running: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    said = ".".join(map(str, running))
    if running >= LEAST_PYTHON:
        return Finding(about="Python", says=said)
    return Finding(
        about="Python",
        state="broken",
        says=said,
        means="hybridlab needs Python 3.11 or later",
        mend="make clean demo PYTHON=python3.11",
    )


def packages(needed: tuple[Package, ...] = NEEDED) -> list[Finding]:
    """The needed packages in one row, and a row for each that is missing."""
    found = {package.name: _version(package.name) for package in needed}
    lacking = [package for package in needed if found[package.name] is None]
    words = ", ".join(f"{name} {said}" for name, said in found.items() if said)
    rows = [Finding(about="packages", says=words)] if words else []
    return rows + [_missing(package, "broken", "pip install --editable .") for package in lacking]


def extras(optional: tuple[Package, ...] = OPTIONAL) -> list[Finding]:
    rows = []
    for package in optional:
        said = _version(package.name)
        if said is None:
            rows.append(_missing(package, "lacks", f"pip install 'hybridlab[{package.extra}]'"))
        else:
            rows.append(Finding(about=package.name, says=said))
    return rows


def faster_whisper() -> list[Finding]:
    """Whether it computes on the card, where both are there: a clip is heard, since the package
    may be there and find no cuBLAS, or be too new for the driver and hear nothing."""
    if _version("faster-whisper") is None or nvml_facts().get("driver") is None:
        return []
    from hybridlab.models.whisper_ctranslate2 import unusable_on_card

    about, reason = "faster-whisper on the card", unusable_on_card()
    if not reason:
        return [Finding(about=about, says="hears on it what it hears on the host")]
    return [
        Finding(
            about=about,
            state="lacks",
            says=reason,
            means=OPTIONAL[0].means,
            mend="pip install nvidia-cublas-cu12 && export LD_LIBRARY_PATH=$(python -c "
            "'import nvidia.cublas.lib as lib; print(*lib.__path__)')",
        )
    ]


def _missing(package: Package, state: State, mend: str) -> Finding:
    return Finding(
        about=package.name, state=state, says="not installed", means=package.means, mend=mend
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def kernel() -> Finding:
    """Jupyter's kernel `python3`, which papermill starts for every notebook."""
    from jupyter_client.kernelspec import KernelSpecManager

    folder = KernelSpecManager().find_kernel_specs().get("python3")
    if folder is not None:
        return Finding(about="Jupyter kernel", says=f"python3 in {folder}")
    return Finding(
        about="Jupyter kernel",
        state="broken",
        says="no kernel python3",
        means="papermill cannot start a notebook",
        mend="python -m ipykernel install --user --name python3",
    )


def notebooks() -> Finding:
    """The notebooks, and which of them are the reader's own."""
    from hybridlab.config.notebooks import notebooks_dir, own_notebooks

    try:
        folder = notebooks_dir()
        own = own_notebooks(folder)
    except HybridlabError as error:
        return Finding(
            about="notebooks",
            state="broken",
            says=str(error),
            means="hybridlab run has nothing to run; plan, fit and verdict work",
            mend="git clone https://github.com/hybridlab/hybridlab",
        )
    also = f"; your own: {', '.join(own)}" if own else ""
    return Finding(about="notebooks", says=f"{folder}{also}")


def audio() -> Finding:
    """The clips that ship with the package."""
    from hybridlab.audio import load_clips

    clips = load_clips()
    seconds = sum(clip.audio_s for clip in clips)
    return Finding(about="audio", says=f"{len(clips)} clips of {seconds:.0f} s ship with hybridlab")


def browser() -> Finding:
    """Only the tests of pages need one."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path and _version("playwright"):
        return Finding(about="browser", says=path)
    return Finding(
        about="browser",
        state="lacks",
        says=path or "no chromium",
        means="tests of the pages in a browser are skipped",
        mend="pip install 'hybridlab[browser]'" if path else "apt-get install chromium",
    )
