"""A notebook's kernel asks about the card without using it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hybridlab import devices as device_module
from hybridlab.config.params import BesideParams
from hybridlab.experiments import beside, setup
from hybridlab.experiments.lab import Lab
from hybridlab.units import GIB, MIB
from tests.fake_nvml import FakeNvml


def test_opening_and_planning_on_a_card_use_no_cuda(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    def begun(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA was used")

    for name in ("_lazy_init", "is_available", "device_count", "current_device", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, begun)
    monkeypatch.setattr(device_module, "cuda_lack", lambda: "")
    nvml.total, nvml.reserved, nvml.used = 15 * GIB, 447 * MIB, 12 * GIB
    values = {"output_dir": str(tmp_path), "headless": True, "device": "auto"}
    lab = Lab.open(BesideParams.from_mapping(values))
    assert lab.device.name == "cuda:0"
    assert lab.card is not None and lab.card.name == "t4"
    assert lab.budget_bytes == 3 * GIB - 447 * MIB
    assert setup.machine_facts(lab)["native dtypes"] == "float32, float16"
    assert beside.shortage(lab, beside._case(lab, "tiny")) == ""
    assert "may be used" in beside.shortage(lab, beside._case(lab, "large-v3"))


KERNEL = """
import os, sys, torch
from hybridlab.cli import doctor_checks
from hybridlab.devices import linux, nvml
from hybridlab.experiments import beside, setup
from hybridlab.experiments.lab import Lab
from hybridlab.processes.isolate import shared_server
from hybridlab.config.params import BesideParams

values = {"output_dir": sys.argv[1], "headless": True, "device": "cuda", "voxtral": "pocket"}
lab = Lab.open(BesideParams.from_mapping(values))
lab.budget_bytes, lab.card, setup.machine_facts(lab), setup.backend_facts(lab)
[beside.shortage(lab, beside._case(lab, size)) for size in ("pocket-s", "large-v3")]
list(doctor_checks.examine())
server = shared_server()
assert not torch.cuda.is_initialized()
own = set(linux.family(os.getpid()))
assert len(own) > 1, own
on_card = {process.pid for process in nvml._computing(nvml.nvml_handle(lab.device.index))}
assert not own & on_card, on_card
assert lab.device.neighbours().value == 0, lab.device.neighbours()
server.stop()
print("untouched")
"""


@pytest.mark.gpu
def test_a_kernel_its_doctor_and_its_case_server_hold_nothing_of_the_card(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", KERNEL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert told.stdout.strip().endswith("untouched"), told.stderr
