"""What this machine and its software are, for manifests."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "safetensors",
    "huggingface-hub",
    "hf-xet",
    "openai-whisper",
    "faster-whisper",
    "ctranslate2",
    "bitsandbytes",
    "mistral-common",
    "soundfile",
    "av",
    "soxr",
    "nvidia-ml-py",
    "papermill",
    "pandas",
    "numpy",
)

#: How the names of variables begin that change how much memory is taken, or how fast it goes:
#: allocators, threads, kernels, visible cards.
_SETTINGS = (
    *("PYTORCH_", "TORCH_", "ATEN_", "CUBLAS_", "CUDA_", "NVIDIA_TF32_OVERRIDE"),
    *("OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "ONEDNN_", "DNNL_"),
    *("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "TRANSFORMERS_", "HF_HUB_OFFLINE", "CT2_"),
)


def machine() -> dict[str, Any]:
    """What the operating system says of this machine; no host or user name."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the platform module's word is all there is
    return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """Versions of the packages that measurements depend on; None where one is absent."""
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def settings() -> dict[str, str]:
    """The environment's settings of allocators, threads, kernels and libraries; of paths the last
    part alone, which names no user."""
    found = {name: text for name, text in os.environ.items() if name.startswith(_SETTINGS)}
    return {name: Path(text).name if "/" in text else text for name, text in sorted(found.items())}


def git_commit() -> str | None:
    """The commit of the package's checkout, with '+' when the tree differs from it."""
    folder = Path(__file__).parent
    if shutil.which("git") is None:
        return None
    answers = [
        subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True, check=False)
        for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
    ]
    if answers[0].returncode != 0:
        return None
    return answers[0].stdout.strip() + ("+" if answers[1].stdout.strip() else "")
