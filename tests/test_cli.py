from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hybridlab.cli import app, join_overrides
from hybridlab.verdict import NOTHING_KEEPS
from tests.synthetic import write_run

PRESET = "params/pocket.yaml"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_plan_prints_all_six_sizes_beside_voxtral() -> None:
    code, text = run("plan", "--card", "t4")
    assert code == 0
    for size in ("tiny", "base", "small", "medium", "large-v3", "turbo"):
        assert size in text
    assert "does not fit" in text
    assert "predicted" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--card", "t44"), "did you mean 't4'"),
        (("plan", "--beams", "0"), "above zero"),
        (("plan", "--voxtral-dtype", "fp8"), "unknown voxtral_dtype"),
        (("run", "params/none.yaml"), "does not exist"),
        (("run", PRESET, "-p", "trails=3"), "did you mean 'trials'"),
        (("run", PRESET, "-p", "trials=many"), "trials = 'many'"),
        (("run", PRESET, "--only", "09"), "unknown notebook"),
        (("run", PRESET, "-p", "audio=/no/such"), "does not exist"),
        (("run", PRESET, "-p", "whisper_backend=faster"), "whisper_backend"),
        (("run", PRESET, "--resume"), "needs --output"),
        (("report", "/no/such/run"), "/no/such/run"),
        (("verdict", "/no/such/run"), "holds no verdict.json"),
        (("verdict", "/no/such/run", "--max-p95-s", "-1"), "must not be below zero"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(project)
    code, text = run(*arguments)
    assert code == 2
    assert message in text
    assert len(text.strip().splitlines()) == 1


def test_a_gpu_preset_without_a_gpu_names_another_preset(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(project)
    code, text = run("run", "params/colab-t4.yaml", "--output", str(tmp_path / "run"))
    assert code == 2
    assert "params/pocket.yaml" in text
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_refused_before_anything_is_loaded(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(project)
    code, text = run(
        "run",
        PRESET,
        *("-p", "voxtral=mini-3b", "-p", "voxtral_weights=local"),
        *("-p", f"voxtral_path={tmp_path}", "--output", str(tmp_path / "run")),
    )
    assert code == 2
    assert "no config.json" in text


def test_an_existing_folder_is_never_overwritten(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    monkeypatch.chdir(project)
    code, text = run("run", PRESET, "--output", str(tmp_path))
    assert code == 2
    assert "never overwritten" in text
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_overrides_in_papermills_way() -> None:
    assert join_overrides(["run", "x", "-p", "trials", "3"]) == ["run", "x", "-p", "trials=3"]
    assert join_overrides(["-p", "trials=3", "--resume"]) == ["-p", "trials=3", "--resume"]


def test_help_needs_no_torch() -> None:
    code = "import sys, hybridlab.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_verdict_is_printed_and_computed_anew_under_constraints(tmp_path: Path) -> None:
    folder = str(write_run(tmp_path))
    code, text = run("verdict", folder)
    assert code == 0
    assert "Why: lowest median latency" in text and "Runner-up sequential plain" in text
    code, text = run("verdict", folder, "--json")
    found = json.loads(text)
    assert found["recommendation"]["variant"] == "threads"
    assert len(found["claims"]) > 1 and found["claims"][0]["verdict"]
    code, text = run("verdict", folder, "--max-p95-s", "1e9", "--json")
    fastest = json.loads(text)["recommendation"]
    assert fastest["median_s"] < 1e9 and fastest["n"] > 1
    code, text = run("verdict", folder, "--max-p95-s", "0.001")
    assert code == 0 and NOTHING_KEEPS in text
