"""What a swap through the weight buffer costs against a plain copy and a reload, as JSON on stdout:
`python -m benchmarks.weight_buffer [--size small]`.

A Whisper of random weights in its true size, saved once as files, so that the reload reads what a
reload reads. The ways take turns in one run; every figure is a median with the repeats beside it.
transformers maps the files and leaves their pages to the first use, so a swap counts as done when a
byte of every page of the weights has been read.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import model_spec, options, publish, ratios, seconds, summary
from hybridlab.devices import CpuDevice, Device, procfs
from hybridlab.models import ModelSpec, SpeechRecognizer, make_asr
from hybridlab.models.whisper_transformers import WhisperTransformers
from hybridlab.strategies.offload.weight_buffer import WeightBuffer, device_block, host_block
from hybridlab.units import GB

REPEATS = 7


def saved_whisper(size: str, folder: Path, device: Device) -> ModelSpec:
    """Random float32 weights of this size as a folder in hub format."""
    spec = model_spec(size, "float32", device, "asr")
    model = WhisperTransformers(spec, device)
    model.load()
    model.save(folder)
    model.unload()
    return replace(spec, weights="local", path=str(folder))


def first_use(model: SpeechRecognizer) -> None:
    """Read a byte of every page of the weights."""
    module = model.module()
    assert module is not None
    for tensor in module.parameters():
        float(tensor.detach().view(-1)[:: procfs.page_bytes() // tensor.element_size()].sum())


def buffer_against_reload(spec: ModelSpec) -> dict[str, Any]:
    """Seconds of a plain copy, of the buffer's stages and of a warm reload of the same weights."""
    device = CpuDevice()
    reloaded, swapped = make_asr(spec, device), make_asr(spec, device)
    swapped.load()
    module = swapped.module()
    assert module is not None
    made = WeightBuffer(module, device)
    fixed, plain = device_block(made.n_bytes, device), host_block(made.n_bytes)
    fresh: list[torch.Tensor] = []
    ways: dict[str, Callable[[], Any]] = {
        "memcpy": lambda: plain.copy_(made.host),
        "copy_in": lambda: made.copy_in(fixed),
        "first_use": lambda: first_use(swapped),
        "release": made.release,
        "allocate": lambda: fresh.append(device_block(made.n_bytes, device)),
        "copy_in_fresh": lambda: made.copy_in(fresh[0]),
        "first_use_fresh": lambda: first_use(swapped),
        "release_fresh": lambda: (made.release(), fresh.clear()),
        "reload_warm": reloaded.load,
        "reload_first_use": lambda: first_use(reloaded),
        "reload_release": reloaded.unload,
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS + 1):
        for name, way in ways.items():
            took[name].append(seconds(way))
    return _compared(made.n_bytes, {name: values[1:] for name, values in took.items()})


def _compared(n_bytes: int, took: dict[str, list[float]]) -> dict[str, Any]:
    """Ratios within each turn."""

    def turns(*stages: str) -> list[float]:
        return [sum(turn) for turn in zip(*(took[stage] for stage in stages), strict=True)]

    def ratio(above: list[float], below: list[float]) -> float:
        return statistics.median(ratios(above, below))

    fixed = turns("copy_in", "first_use")
    fresh = turns("allocate", "copy_in_fresh", "first_use_fresh")
    reload = turns("reload_warm", "reload_first_use")
    switch = turns("allocate", "copy_in_fresh", "first_use_fresh", "release_fresh")
    reload_switch = turns("reload_warm", "reload_first_use", "reload_release")
    return {
        "bytes": n_bytes,
        "stages": {name: summary(values) for name, values in took.items()},
        "memcpy_gb_per_s": n_bytes / statistics.median(took["memcpy"]) / GB,
        "copy_in_gb_per_s": n_bytes / statistics.median(took["copy_in"]) / GB,
        "copy_in_share_of_memcpy": ratio(took["memcpy"], took["copy_in"]),
        "reload_over_copy_in": ratio(took["reload_warm"], took["copy_in"]),
        "usable_reload_over_fixed_block": ratio(reload, fixed),
        "usable_reload_over_fresh_block": ratio(reload, fresh),
        "switch_reload_over_fresh_block": ratio(reload_switch, switch),
    }


def main() -> None:
    size = options(__doc__, size="small").size
    with tempfile.TemporaryDirectory(prefix="hybridlab-bench-") as folder:
        spec = saved_whisper(size, Path(folder), CpuDevice())
        found = {
            backend: buffer_against_reload(replace(spec, backend=backend))
            for backend in ("openai-whisper", "transformers")
        }
    publish(size=size, **found)


if __name__ == "__main__":
    main()
