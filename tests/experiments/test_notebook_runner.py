"""Notebooks for real: by papermill directly, by the suite, skipped, interrupted, resumed."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import papermill
import pytest
import yaml

from hybridlab import catalog
from hybridlab.analysis.case_status import invalid_words, none_valid
from hybridlab.audio import load_clips
from hybridlab.errors import ParameterError, RunFolderError
from hybridlab.experiments import notebook_runner
from hybridlab.reporting import labels
from hybridlab.results.manifest import read_manifest
from hybridlab.results.schema import TABLES, required_columns

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("case_server")]

SMALL: dict[str, Any] = {
    "trials": 2,
    "rounds": 1,
    "warmup": 0,
    "max_new_tokens": 32,
    "max_other_cpu_share": 1.0,  # whoever works on this machine during the tests
    "sequential_variants": ["plain"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, case_server: object) -> Path:
    """A run of three notebooks."""
    folder = tmp_path_factory.mktemp("suite") / "a run"
    return notebook_runner.run_suite(SMALL, preset="small", only=["00", "04", "07"], output=folder)


def test_a_run_writes_what_the_design_says(finished: Path) -> None:
    manifest = read_manifest(finished)
    assert manifest["status"] == "completed", manifest["notebooks"]
    assert manifest["params"] == SMALL
    assert "index.html" in manifest["artefacts"]
    for table in TABLES:
        frame = pd.read_parquet(finished / f"{table}.parquet")
        assert {*required_columns(table)} <= set(frame.columns)
    for name in ("00_setup", "04_sequential", "07_verdict"):
        assert (finished / "notebooks" / f"{name}.ipynb").is_file()
        html = (finished / "notebooks" / f"{name}.html").read_text()
        assert "Traceback" not in html
        assert "image/png;base64" in html
        assert 'src="http' not in html
    verdict = json.loads((finished / "verdict.json").read_text())
    assert verdict["answer"]


def test_trials_speak_and_pass_the_parity_gate(finished: Path) -> None:
    trials = pd.read_parquet(finished / "trials.parquet")
    race = trials[
        (trials["experiment"] == "strategy_comparison") & ~trials["is_first_request"].astype(bool)
    ]
    assert len(race) > 0
    assert race["output_matches_reference"].astype(bool).all()
    assert race["transcript"].notna().all()


def test_other_audio_for_the_pocket_models_is_told_once_and_wherever_it_is_read(
    project: Path, tmp_path: Path
) -> None:
    """By the command, by notebook 00 and by the report; `finished` heard the shipped clips."""
    folder, run = tmp_path / "mine", tmp_path / "run"
    folder.mkdir()
    shutil.copy(min(load_clips(), key=lambda clip: clip.audio_s).path, folder)
    command = [sys.executable, "-m", "hybridlab.cli", "run", "params/pocket.yaml", "--only", "00"]
    busy = f"max_other_cpu_share={SMALL['max_other_cpu_share']}"
    ended = subprocess.run(
        [*command, "-p", f"audio={folder}", "-p", busy, "--output", str(run)],
        capture_output=True,
        text=True,
        check=True,
        cwd=project,
    )
    assert ended.stderr.count(catalog.POCKET_WORDS) == 1
    words = html.escape(labels.capital(catalog.POCKET_WORDS))
    for page in ("notebooks/00_setup.html", "index.html"):
        assert words in (run / page).read_text(encoding="utf-8"), page


def test_of_the_shipped_clips_nothing_is_told(finished: Path) -> None:
    words = catalog.POCKET_WORDS.removeprefix("the ")
    for page in ("notebooks/00_setup.html", "notebooks/04_sequential.html", "index.html"):
        assert words not in (finished / page).read_text(encoding="utf-8"), page


def test_every_claim_is_judged(finished: Path) -> None:
    claims = pd.read_parquet(finished / "claims.parquet")
    verdicts = {"supported", "refuted", "inconclusive", "not testable here"}
    assert set(claims["verdict"]) <= verdicts
    by_id = claims.set_index("claim")["verdict"]
    assert by_id["option-c-share"] == "refuted"
    assert by_id["available-sum"] == "refuted"


def test_a_finished_run_is_refused_and_resuming_it_repeats_nothing(finished: Path) -> None:
    with pytest.raises(RunFolderError, match="never overwritten"):
        notebook_runner.run_suite(SMALL, preset="small", output=finished)
    with pytest.raises(ParameterError, match="other parameters"):
        notebook_runner.run_suite(
            {**SMALL, "trials": 3}, preset="small", output=finished, resume=True
        )
    before = (finished / "parts" / "04_sequential" / "cases.jsonl").stat().st_mtime_ns
    notebook_runner.run_suite(
        SMALL, preset="small", only=["00", "04", "07"], output=finished, resume=True
    )
    assert (finished / "parts" / "04_sequential" / "cases.jsonl").stat().st_mtime_ns == before


def test_a_folder_may_hold_runs_on_simulated_cards_and_nothing_else(tmp_path: Path) -> None:
    inner = tmp_path / "t4-simulated" / "manifest.json"
    inner.parent.mkdir()
    for device, is_taken in (("simulated:t4", False), ("cpu", True)):
        inner.write_text(json.dumps({"params": {"device": device}}))
        assert notebook_runner._is_taken(tmp_path) is is_taken
    inner.write_text(json.dumps({"params": {"device": "simulated:t4"}}))
    (tmp_path / "notes.txt").touch()
    assert notebook_runner._is_taken(tmp_path)
    assert not notebook_runner._is_taken(tmp_path / "not there")


def test_what_other_programs_disturbed_is_repeated_by_resuming(tmp_path: Path) -> None:
    """No machine is as idle as 0 asks for: all times are invalid, and the run says so."""
    folder, asked = tmp_path / "run", {**SMALL, "max_other_cpu_share": 0.0}
    suite: dict[str, Any] = {"preset": "small", "only": ["04"], "output": folder}
    tries = []
    for resume in (False, True):
        notebook_runner.run_suite(asked, resume=resume, **suite)
        assert read_manifest(folder)["status"] == "completed"
        cases = pd.read_parquet(folder / "cases.parquet")
        if not none_valid(cases):
            pytest.skip("nothing else was at work on this machine")
        tries.append(cases.set_index("case_id"))
        page = (folder / "index.html").read_text(encoding="utf-8")
        assert f"{invalid_words(cases)}; close them and repeat" in page
    first, second = tries
    again = first.index[first["status"] == "invalid"]
    assert (first.loc[again, "started"] < second.loc[again, "started"]).all()


def test_papermill_runs_a_notebook_directly_with_a_preset(project: Path, tmp_path: Path) -> None:
    from hybridlab.config.preset_files import read_yaml

    values = read_yaml(project / "params" / "pocket.yaml")
    papermill.execute_notebook(
        str(project / "notebooks" / "00_setup.ipynb"),
        str(tmp_path / "out.ipynb"),
        parameters={**values, "output_dir": str(tmp_path / "run"), "headless": True},
        progress_bar=False,
        kernel_name="python3",
    )
    run = tmp_path / "run"
    assert read_manifest(run / "parts" / "00_setup")["status"] == "completed"
    lines = (run / "parts" / "00_setup" / "trials.jsonl").read_text().splitlines()
    assert len(pd.read_parquet(run / "trials.parquet")) == len(lines) > 0


def test_missing_hardware_is_recorded_as_skipped(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    papermill.execute_notebook(
        str(project / "notebooks" / "01_voxtral_alone.ipynb"),
        str(tmp_path / "out.ipynb"),
        parameters={"device": "cuda", "output_dir": str(tmp_path / "run"), "headless": True},
        progress_bar=False,
        kernel_name="python3",
    )
    part = read_manifest(tmp_path / "run" / "parts" / "01_voxtral_alone")
    assert part["status"] == "skipped"
    assert "set device to cpu" in part["reason"]


def test_a_notebook_that_breaks_is_a_failed_run_with_a_report(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = nbformat.read(project / "notebooks" / "00_setup.ipynb", as_version=4)
    broken.cells[4].source = "raise RuntimeError('on purpose')"
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nbformat.write(broken, folder / "00_setup.ipynb")
    monkeypatch.setattr(notebook_runner, "notebooks_dir", lambda: folder)
    run = notebook_runner.run_suite(SMALL, preset="small", only=["00"], output=tmp_path / "run")
    assert read_manifest(run)["status"] == "failed"
    outcome = read_manifest(run)["notebooks"]["00_setup"]
    assert outcome["status"] == "failed"
    assert "on purpose" in outcome["reason"]
    assert "on purpose" in (run / "index.html").read_text()


def test_an_interrupt_leaves_a_run_that_can_be_reported_and_resumed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    def done_before(*_: Any) -> Any:
        part = Path("parts") / "00_setup"
        shutil.copytree(finished / part, folder / part)
        return read_manifest(finished)["notebooks"]["00_setup"]

    monkeypatch.setattr(notebook_runner, "_run_notebook", interrupted)
    with pytest.raises(KeyboardInterrupt):
        notebook_runner.run_suite(SMALL, preset="small", only=["00"], output=folder)
    assert read_manifest(folder)["status"] == "crashed"
    monkeypatch.setattr(notebook_runner, "_run_notebook", done_before)
    notebook_runner.run_suite(SMALL, preset="small", only=["00"], output=folder, resume=True)
    assert read_manifest(folder)["status"] == "completed"
    assert (folder / "index.html").is_file()


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    """One by a process of its own, one by this process."""
    preset = tmp_path / "small.yaml"
    preset.write_text(yaml.safe_dump(SMALL))
    other, own = tmp_path / "one", tmp_path / "two"
    command = [sys.executable, "-m", "hybridlab.cli", "run", str(preset), "--only", "00"]
    with subprocess.Popen(
        [*command, "--output", str(other)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        notebook_runner.run_suite(SMALL, preset="small", only=["00"], output=own)
        said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said.decode()
    for folder in (other, own):
        assert read_manifest(folder)["status"] == "completed"
        assert len(pd.read_parquet(folder / "cases.parquet")) == 1
