"""`hybridlab doctor`: what is missing is told with its impact and one command; nothing stops it."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from hybridlab import devices as device
from hybridlab.cli import doctor as checks
from hybridlab.cli.commands import app
from hybridlab.cli.doctor import CheckResult, result_table, summary
from hybridlab.config.preset_files import read_yaml
from hybridlab.devices import CpuDevice, CudaDevice, visible
from hybridlab.devices import nvml as nvml_module
from hybridlab.errors import UnavailableError
from hybridlab.results import run_folder
from hybridlab.simulation import build
from hybridlab.units import GB
from tests.fake_nvml import FakeNvml


def one(results: Iterable[CheckResult], name: str) -> CheckResult:
    (found,) = [result for result in results if result.name == name]
    return found


def crash() -> Iterator[CheckResult]:
    raise ImportError("no module named torch")


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    return result.exit_code, result.output


def test_this_machine_runs_the_demo_which_is_what_the_tests_do(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.chdir(project)
    code, text = invoke("--json")
    found = json.loads(text)
    assert code == 0 and found["demo"] is True
    names = {row["name"] for row in found["checks"]}
    assert {"machine", "packages", "host memory", "GPU", "Jupyter kernel"} <= names
    assert {"preset pocket", "preset colab-t4", "preset full-cpu"} <= names
    for row in found["checks"]:
        assert row["state"] == "ok" or (row["impact"] and row["fix"])


def test_a_check_that_fails_is_a_result_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = CheckResult("other", "fine")
    known = {"packages": crash, "GPU": crash, "other": lambda: iter([good])}
    monkeypatch.setattr(checks, "CHECKS", known)
    found = list(checks.run_checks())
    assert [result.state for result in found] == ["broken", "limited", "ok"]
    assert "no module named torch" in found[0].detail
    code, text = invoke()
    lines = [line.rstrip() for line in text.splitlines()]
    assert code == 1
    assert lines[-1] == "The demo cannot run here: 1 of 3 checks failed."
    assert any(line.endswith("$ pip install --editable .") for line in lines)
    assert max(map(len, lines)) <= 80 and "\x1b" not in text


def test_no_torch_at_all_is_still_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # what an import of it then says
    found = list(checks.run_checks())
    assert one(found, "GPU").state == "limited"
    assert one(found, "presets").state == "broken"  # nothing tells what would run
    assert "torch" in one(found, "presets").detail
    assert one(found, "disk").state == "ok"


def test_missing_packages_name_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("torch", "faster-whisper"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(checks, "version", version)
    found = list(checks.packages())
    assert one(found, "torch").state == "broken"
    assert one(found, "faster-whisper").state == "limited"
    assert "hybridlab[ct2]" in one(found, "faster-whisper").fix


def test_kernel_and_notebooks(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    from jupyter_client import kernelspec

    monkeypatch.setattr(kernelspec.KernelSpecManager, "find_kernel_specs", lambda self: {})
    (missing,) = checks.kernel()
    assert missing.state == "broken" and "ipykernel install" in missing.fix
    monkeypatch.chdir(project)
    assert next(checks.notebooks()).detail == str(project / "notebooks")


@pytest.mark.parametrize(("free_gb", "state"), [(20, "ok"), (6, "limited"), (1, "broken")])
def test_host_memory(monkeypatch: pytest.MonkeyPatch, free_gb: float, state: str) -> None:
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: int(free_gb * GB))
    (found,) = checks.memory()
    assert found.state == state
    if state == "limited":
        assert found.fix.endswith("memory_budget_gb=3.5")


@pytest.mark.parametrize(("free", "state"), [(GB // 10, "broken"), (9 * GB, "ok")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str) -> None:
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(run_folder, "default_outputs", lambda: tmp_path / "not" / "yet")
    assert next(checks.disk()).state == state


def test_a_quota_of_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("150000 100000\n")
    monkeypatch.setattr(checks, "QUOTA", quota)
    monkeypatch.setattr(checks.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert "8 cores (1.5 by the container's quota)" in next(checks.machine()).detail


def test_a_card_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visible, "cuda_lack", lambda: "torch is built without CUDA")
    monkeypatch.setattr(nvml_module, "nvml_facts", lambda: {"driver": "580.1"})
    found = next(checks.gpu())
    assert "driver 580.1 is there" in found.detail and "reinstall torch" in found.fix
    assert "built without CUDA" in found.detail
    monkeypatch.setattr(nvml_module, "nvml_facts", lambda: {"reason": "no NVML: none"})
    assert next(checks.gpu()).detail == "none (no NVML: none)"


def test_a_card_without_some_readings_says_which_and_why(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visible, "cuda_lack", lambda: "")
    card = next(checks.gpu())
    assert "Tesla T4: driver 580.82.07" in card.detail
    assert "sm_clock_mhz unknown (Not Supported)" in card.detail
    assert "reason" not in card.detail
    # the card is known from CUDA's driver alone
    monkeypatch.setattr(CudaDevice, "title", lambda self: "Tesla T4")
    nvml.present = False
    visible._visible.cache_clear()
    assert next(checks.gpu()).detail.startswith("Tesla T4: no readings (no NVML: Driver Not Loaded")


def test_a_preset_says_what_it_has_still_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the bytes that the hub's pages list: 9.35 GB of Voxtral, 0.15 of tiny, 3.06 of medium."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(checks, "_fits_here", lambda params: "it would fit")
    values = {"llm_model": "mini-3b", "llm_weights": "hub", "asr_weights": "hub"}
    values |= {"asr_model": "tiny", "asr_backend": "transformers", "asr_models": ["medium"]}
    values |= {"sizes_weights": "hub", "quality_models": []}
    found = checks.preset_result("released", values)
    assert found.state == "limited"
    assert found.impact.startswith("about 12.56 GB of weights are still to fetch")
    assert found.fix == "hybridlab fetch released"


def test_presets_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_lack", lambda: "no driver")
    gpu_only = checks.preset_result("mine", {"device": "cuda"})
    assert gpu_only.state == "limited" and "0 CUDA devices" in gpu_only.impact
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: GB)
    large = {"llm_model": "mini-3b", "llm_weights": "random", "device": "cpu"}
    assert "its pair takes" in checks.preset_result("large", large).impact
    assert checks.preset_result("pocket", {"trails": 3}).state == "broken"


def test_the_summary_counts() -> None:
    fine, limited = CheckResult("b", "yes"), CheckResult("a", "no", "less", "do it")
    assert summary([fine]) == "The demo runs here; nothing is missing."
    assert "1 of 2 checks" in summary([fine, limited])


def test_results_that_differ_in_their_names_alone_share_a_row() -> None:
    lack = ("cannot run here", "no GPU", "do it")
    results = [
        CheckResult("preset a", *lack),
        CheckResult("b", "yes"),
        CheckResult("preset c", *lack),
    ]
    table = result_table(results)
    names, found = (list(column.cells) for column in table.columns[1:])
    assert names == ["preset a\npreset c", "b"]
    assert list(map(str, found)) == ["cannot run here\nno GPU\n$ do it", "yes"]


@pytest.mark.gpu
def test_a_card_is_named() -> None:
    found = next(checks.gpu())
    assert found.state == "ok" and CudaDevice(0).title() in found.detail


def test_a_simulated_card_is_named_and_needs_a_compiler(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_yaml(project / "params" / "t4-simulated.yaml")
    monkeypatch.setattr(build, "compiler", lambda: ["cc"])
    assert "on an NVIDIA T4 (simulated)" in checks.preset_result("t4-simulated", values).detail

    def none() -> Any:
        raise UnavailableError("it needs a C compiler")

    monkeypatch.setattr(build, "compiler", none)
    found = checks.preset_result("t4-simulated", values)
    assert (found.state, found.impact) == ("limited", "it needs a C compiler")
