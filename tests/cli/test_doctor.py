"""`hybridlab doctor`: every lack is said, with what it means and one command; nothing stops it."""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from hybridlab import devices as device
from hybridlab.cli import app
from hybridlab.cli import doctor_checks as doctor
from hybridlab.cli.doctor import finding_rows, verdict_words
from hybridlab.cli.doctor_checks import Finding, machine, software, weights
from hybridlab.config.defaults import read_yaml
from hybridlab.devices import CpuDevice, CudaDevice, visible
from hybridlab.errors import UnavailableError
from hybridlab.units import GB
from tests.fake_nvml import FakeNvml


def one(findings: Sequence[Finding], about: str) -> Finding:
    (found,) = [finding for finding in findings if finding.about == about]
    return found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, project: Path) -> Any:
    monkeypatch.chdir(project)

    def invoke(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["doctor", *arguments])
        return result.exit_code, result.output

    return invoke


def test_this_machine_runs_the_demo_which_is_what_the_tests_do(run: Any) -> None:
    code, text = run("--json")
    found = json.loads(text)
    assert code == 0 and found["demo"] is True
    abouts = {row["about"] for row in found["findings"]}
    assert {"Python", "packages", "host memory", "GPU", "Jupyter kernel", "hub"} <= abouts
    assert {"preset pocket", "preset colab-t4", "preset full-cpu"} <= abouts
    for row in found["findings"]:
        assert row["state"] == "ok" or (row["means"] and row["mend"])


def test_plain_text_has_a_command_under_every_lack(run: Any) -> None:
    _, text = run()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("lacks", "broken")):
            assert any(follow.strip().startswith("$ ") for follow in lines[number + 1 : number + 9])
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    def crash() -> Finding:
        raise ImportError("no module named torch")

    good = Finding(about="other", says="fine")
    found = list(doctor.examine({"audio": crash, "GPU": crash, "other": lambda: good}))
    assert [finding.state for finding in found] == ["broken", "lacks", "ok"]
    assert "no module named torch" in found[0].says
    assert not doctor.demo_runs(found)
    monkeypatch.setattr(doctor, "CHECKS", {"audio": crash})
    code, text = run()
    assert code == 1 and "The demo cannot run here" in text


def test_no_torch_at_all_is_still_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # what an import of it then says
    found = list(doctor.examine())
    assert one(found, "GPU").state == "lacks"
    assert one(found, "presets").state == "broken"  # nobody can say what would run
    assert "torch" in one(found, "presets").says
    assert one(found, "disk").state == "ok"


def test_missing_packages_name_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("torch", "faster-whisper", "bitsandbytes"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(software, "version", version)
    assert one(software.packages(), "torch").state == "broken"
    assert [row.state for row in software.extras()] == ["lacks", "lacks"]
    assert "hybridlab[ct2]" in software.extras()[0].mend


def test_python_and_kernel_and_notebooks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: Path
) -> None:
    assert software.python((3, 10, 1)).state == "broken"
    assert software.python((3, 13, 0)).state == "ok"
    from jupyter_client import kernelspec

    monkeypatch.setattr(kernelspec.KernelSpecManager, "find_kernel_specs", lambda self: {})
    assert "ipykernel install" in software.kernel().mend
    monkeypatch.chdir(project)
    assert software.notebooks().says == str(project / "notebooks")


@pytest.mark.parametrize(("free_gb", "state"), [(20, "ok"), (6, "lacks"), (1, "broken")])
def test_host_memory(free_gb: float, state: str) -> None:
    found = machine.memory(int(free_gb * GB))
    assert found.state == state
    if state == "lacks":
        assert found.mend.endswith("memory_budget_gb=3.5")


def test_limits_disk_and_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4 * GB, 4 * GB))
    assert machine.limits().state == "lacks" and "ulimit" in machine.limits().mend
    for free, state in ((GB, "lacks"), (GB // 10, "broken"), (9 * GB, "ok")):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda path, u=usage: u)
        assert machine.disk(tmp_path / "not" / "yet").state == state
    quota = tmp_path / "cpu.max"
    quota.write_text("150000 100000\n")
    monkeypatch.setattr(machine, "QUOTA", quota)
    assert "1.5 of them" in machine.processors().says


def test_a_card_that_torch_cannot_use_is_a_lack_of_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cuda_lack", lambda: "torch is built without CUDA")
    monkeypatch.setattr(machine, "nvml_facts", lambda: {"driver": "580.1"})
    (found,) = machine.gpu()
    assert "driver 580.1 is there" in found.says and "reinstall torch" in found.mend
    assert "built without CUDA" in found.says
    monkeypatch.setattr(machine, "nvml_facts", lambda: {"reason": "no NVML: none"})
    assert machine.gpu()[0].says == "none (no NVML: none)"


def test_a_card_without_some_readings_says_which_and_why(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cuda_lack", lambda: "")
    card = one(machine.gpu(), "GPU")
    assert "Tesla T4: driver 580.82.07" in card.says
    assert "sm_clock_mhz unknown (Not Supported)" in card.says
    assert "reason" not in card.says
    # the card is known from CUDA's driver alone
    monkeypatch.setattr(CudaDevice, "title", lambda self: "Tesla T4")
    nvml.present = False
    visible._visible.cache_clear()
    says = one(machine.gpu(), "GPU").says
    assert says.startswith("Tesla T4: no readings (no NVML: Driver Not Loaded")


def test_presets_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_lack", lambda: "no driver")
    gpu_only = weights.preset_row("mine", {"device": "cuda"})
    assert gpu_only.state == "lacks" and "0 CUDA devices" in gpu_only.means
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: GB)
    large = {"voxtral": "mini-3b", "voxtral_weights": "random", "device": "cpu"}
    assert "its pair takes" in weights.preset_row("large", large).means
    assert weights.preset_row("pocket", {"trails": 3}).state == "broken"
    released = {**large, "voxtral_weights": "hub"}
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: 40 * GB)
    assert "first run fetches mistralai/Voxtral" in weights.preset_row("hub", released).says


def test_the_words_of_the_whole() -> None:
    lack = Finding(about="a", state="lacks", says="no", means="less", mend="do it")
    fine = Finding(about="b", says="yes")
    assert verdict_words([fine]) == "The demo runs here, and nothing is missing."
    assert "1 of 2 findings limit" in verdict_words([fine, lack])
    assert finding_rows(lack)[-1] == ("", "", "$ do it")
    with pytest.raises(ValueError, match="what mends it"):
        Finding(about="c", state="lacks", says="no")


@pytest.mark.gpu
def test_a_card_is_named() -> None:
    found = machine.gpu()
    assert one(found, "GPU").state == "ok"
    assert CudaDevice(0).title() in one(found, "GPU").says


def test_a_simulated_card_is_named_and_needs_a_compiler(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_yaml(project / "params" / "t4-simulated.yaml")
    monkeypatch.setattr(weights, "compiler", lambda: ["cc"])
    assert "on an NVIDIA T4 (simulated)" in weights.preset_row("t4-simulated", values).says

    def none() -> list[str]:
        raise UnavailableError("it needs a C compiler")

    monkeypatch.setattr(weights, "compiler", none)
    row = weights.preset_row("t4-simulated", values)
    assert (row.state, row.means) == ("lacks", "it needs a C compiler")
