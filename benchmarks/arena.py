"""What an arena's swap costs against a plain copy and a reload, as JSON on stdout:
`python -m benchmarks.arena`.

A Whisper of random weights in its true size, saved once as files, so that the reload reads what a
reload reads. The ways take turns in one run; every figure is a median with the repeats beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import seconds, summary
from hybridlab.arena import Arena, device_block, host_block
from hybridlab.device import CpuDevice, Device
from hybridlab.records import machine, versions
from hybridlab.tenants import TenantSpec
from hybridlab.tenants.whisper_transformers import WhisperTransformers
from hybridlab.units import GB

REPEATS = 7


def saved_whisper(size: str, folder: Path, device: Device) -> TenantSpec:
    """Random float32 weights of this size as a folder in hub format."""
    spec = TenantSpec(model=size, backend="transformers", weights="random", dtype="float32")
    tenant = WhisperTransformers(spec, device)
    tenant.load()
    tenant.save(folder)
    tenant.unload()
    return replace(spec, weights="local", path=str(folder))


def arena_against_reload(size: str) -> dict[str, Any]:
    """Seconds of a plain copy, of an arena's stages and of a warm reload of the same weights."""
    device = CpuDevice()
    with tempfile.TemporaryDirectory(prefix="hybridlab-arena-") as folder:
        spec = saved_whisper(size, Path(folder), device)
        reloaded, swapped = WhisperTransformers(spec, device), WhisperTransformers(spec, device)
        swapped.load()
        made = Arena(swapped.module(), device)
        fixed, plain = device_block(made.n_bytes, device), host_block(made.n_bytes)
        fresh: list[torch.Tensor] = []
        ways: dict[str, Callable[[], Any]] = {
            "memcpy": lambda: plain.copy_(made.host),
            "copy_in": lambda: made.copy_in(fixed),
            "release": made.release,
            "allocate": lambda: fresh.append(device_block(made.n_bytes, device)),
            "copy_in_fresh": lambda: made.copy_in(fresh[0]),
            "release_fresh": lambda: (made.release(), fresh.clear()),
            "reload_warm": reloaded.load,
            "reload_release": reloaded.unload,
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(REPEATS + 1):
            for name, way in ways.items():
                took[name].append(seconds(way))
    return _compared(made.n_bytes, {name: values[1:] for name, values in took.items()})


def _compared(n_bytes: int, took: dict[str, list[float]]) -> dict[str, Any]:
    """Ratios within each turn, so that a drifting machine weighs on both sides alike."""

    def ratio(above: list[float], below: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(above, below, strict=True))

    swap = [sum(turn) for turn in zip(took["allocate"], took["copy_in_fresh"], strict=True)]
    return {
        "bytes": n_bytes,
        "stages": {name: summary(values) for name, values in took.items()},
        "memcpy_gb_per_s": n_bytes / statistics.median(took["memcpy"]) / GB,
        "copy_in_gb_per_s": n_bytes / statistics.median(took["copy_in"]) / GB,
        "copy_in_share_of_memcpy": ratio(took["memcpy"], took["copy_in"]),
        "reload_warm_over_fixed_block": ratio(took["reload_warm"], took["copy_in"]),
        "reload_warm_over_fresh_block": ratio(took["reload_warm"], swap),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="small", help="a Whisper size (default: small)")
    size = parser.parse_args().size
    result = {"machine": machine(), "versions": versions(), size: arena_against_reload(size)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
