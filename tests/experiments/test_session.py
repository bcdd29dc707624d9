"""A notebook's kernel asks about the card without using it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybridlab import catalog
from hybridlab import devices as device_module
from hybridlab.config.params import BesideParams
from hybridlab.config.preset_files import read_yaml
from hybridlab.errors import RunFolderError
from hybridlab.experiments import notebook_runner
from hybridlab.experiments.plans import co_residency, setup
from hybridlab.experiments.session import Session
from hybridlab.processes.fork_server import ADDRESS_VARIABLE
from hybridlab.results.manifest import read_manifest, run_manifest
from hybridlab.units import GIB, MIB
from tests.audio.encoding import by_av, sine, written
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
    session = Session.open(BesideParams.from_mapping(values))
    assert session.device.name == "cuda:0"
    assert session.card is not None and session.card.name == "t4"
    told = read_manifest(session.part.folder)["gpu"]
    assert (told["driver"], told["cuda"], told["power_limit_w"]) == ("580.82.07", "13.0", 70.0)
    assert told["sm_clock_mhz"] is None and told["sm_clock_mhz_reason"] == "Not Supported"
    assert session.budget_bytes == 3 * GIB - 447 * MIB
    assert setup.machine_facts(session)["native dtypes"] == "float32, float16"
    assert co_residency.skip_reason(session, co_residency._case(session, "tiny")) == ""
    assert "may be used" in co_residency.skip_reason(
        session, co_residency._case(session, "large-v3")
    )


def test_what_is_left_out_of_the_audio_is_told_by_the_run_the_notebook_and_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "own"
    written(own, "memo.m4a", by_av(sine(rate=44_100), "ipod", "aac", rate=44_100))
    written(own, "film.mp4", by_av(sine(), "mp4", "aac", film="mpeg4", tracks=0))
    written(own, "notes.txt", b"x")
    lines = [
        "film.mp4 has no sound in it; name a file that has",
        "1 file without audio (1 .txt)",
    ]
    values = {"audio": str(own), "output_dir": str(tmp_path / "run"), "device": "cpu"}
    params = BesideParams.from_mapping(values)
    notebook_runner._preflight(params)
    assert [record.getMessage() for record in caplog.records] == [
        f"audio left out: {line}" for line in lines
    ]
    session = Session.open(params)
    assert [clip.id for clip in session.clips] == ["memo"]
    assert capsys.readouterr().out.splitlines() == [f"audio left out: {line}" for line in lines]
    session.part.close()
    assert read_manifest(session.part.folder)["audio_left_out"] == lines
    assert (
        run_manifest(
            params={}, started="", status="completed", artefacts=[], base=tmp_path / "run"
        )["audio_left_out"]
        == lines
    )


def test_shipped_clips_leave_nothing_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"output_dir": str(tmp_path), "device": "cpu"}
    session = Session.open(BesideParams.from_mapping(values))
    assert (len(session.clips) > 1, session.clips.left_out) == (True, ())
    assert "left out" not in capsys.readouterr().out
    session.part.close()
    assert "audio_left_out" not in read_manifest(session.part.folder)


KERNEL = """
import os, sys, torch
from hybridlab.cli import doctor
from hybridlab.devices import procfs, nvml
from hybridlab.experiments.plans import co_residency, setup
from hybridlab.experiments.session import Session
from hybridlab.processes.fork_server import shared_server
from hybridlab.config.params import BesideParams

values = {"output_dir": sys.argv[1], "headless": True, "device": "cuda", "llm_model": "pocket"}
session = Session.open(BesideParams.from_mapping(values))
session.budget_bytes, session.card, setup.machine_facts(session), setup.backend_facts(session)
for size in ("pocket-s", "large-v3"):
    co_residency.skip_reason(session, co_residency._case(session, size))
list(doctor.run_checks())
server = shared_server()
assert not torch.cuda.is_initialized()
own = set(procfs.process_tree(os.getpid()))
assert len(own) > 1, own
on_card = {process.pid for process in nvml._ask(session.device.index, "processes", nvml._computing)}
assert not own & on_card, on_card
assert session.device.other_processes().value == 0, session.device.other_processes()
server.stop()
print("untouched")
"""


@pytest.mark.gpu
def test_a_kernel_its_doctor_and_its_case_server_hold_nothing_of_the_card(tmp_path: Path) -> None:
    # a case server of its own, whatever the tests before this one have started
    own = {name: value for name, value in os.environ.items() if name != ADDRESS_VARIABLE}
    told = subprocess.run(
        [sys.executable, "-c", KERNEL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=own,
    )
    assert told.stdout.strip().endswith("untouched"), told.stderr


def test_a_larger_card_that_stands_for_a_t4_has_its_kernels(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`kernels_of` pins what the LLM's spec names; arms and limits are cases of the same spec."""
    monkeypatch.setattr(device_module, "cuda_lack", lambda: "")
    nvml.names, nvml.total, nvml.used = ["NVIDIA H100 80GB HBM3"], 80 * GIB, 0
    monkeypatch.setattr(nvml, "nvmlDeviceGetCudaComputeCapability", lambda handle: (9, 0))
    values = read_yaml(Path(__file__).parents[2] / "params" / "t4-memory-limit.yaml")
    values |= {"output_dir": str(tmp_path), "headless": True}
    own = {key: value for key, value in values.items() if key in BesideParams.model_fields}
    session = Session.open(BesideParams.from_mapping(own))
    case = co_residency._case(session, "tiny")
    assert session.device.capability == (9, 0)
    assert (session.llm.card, case.llm.card) == ("t4", "t4")
    assert case.card_on(session.device) == catalog.card("t4")
    assert case.memory_limit_bytes == catalog.card("t4").usable_bytes


def test_rows_of_other_audio_under_the_same_names_are_not_gone_on_with(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    values = {"output_dir": str(tmp_path / "run"), "headless": True, "audio": str(own)}
    for rate, refused in ((16_000, False), (16_000, False), (8_000, True)):
        written(own, "a.wav", by_av(sine(rate=rate), "wav", "pcm_s16le", rate=rate))
        session = Session.open(BesideParams.from_mapping({**values, "device": "cpu"}))
        if refused:
            with pytest.raises(RunFolderError, match="the audio is not that of the rows in"):
                _ = session.clips
        else:
            assert len(session.clips) == 1
            session.part.close("failed")
