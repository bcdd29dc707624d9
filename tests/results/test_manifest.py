"""What a manifest says of where figures come from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import benchmarks
from benchmarks.report import publish
from hybridlab.config.params import SequentialParams
from hybridlab.devices.system_info import git_commit, settings
from hybridlab.results.manifest import read_manifest, run_manifest, write_json
from tests.sessions import open_session


def test_settings_are_those_of_allocators_threads_and_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LD_PRELOAD", "/home/somebody/libjemalloc.so.2")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = settings()
    assert found["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["LD_PRELOAD"] == "libjemalloc.so.2"
    assert "hf_secret" not in found.values()


def test_a_manifest_says_commit_settings_and_the_hash_of_every_clip(tmp_path: Path) -> None:
    session = open_session(tmp_path, SequentialParams)
    clip = session.clips[0]
    session.part.close("completed")
    told = read_manifest(session.part.folder)
    assert told["audio"][clip.id] == hashlib.sha256(Path(clip.path).read_bytes()).hexdigest()
    assert len(told["audio"]) == len(session.clips)
    assert {"git_commit", "environment", "versions", "machine", "started"} <= set(told)
    assert "gpu" not in told  # a CPU


def test_of_a_simulated_card_the_manifest_says_what_the_catalog_knows(tmp_path: Path) -> None:
    session = open_session(tmp_path, SequentialParams, device="simulated:t4")
    told = read_manifest(session.part.folder)["gpu"]
    assert told["name"] == "NVIDIA T4 (simulated)"
    assert (told["compute_capability"], "driver" in told) == ("7.5", False)


def test_a_run_s_manifest_keeps_what_its_parts_were_measured_on(tmp_path: Path) -> None:
    for name, own in {"01_a": {"gpu": {"driver": "1"}}, "02_b": {"audio": {"c": "f"}}}.items():
        (tmp_path / "parts" / name).mkdir(parents=True)
        write_json(tmp_path / "parts" / name / "manifest.json", own)
    told = run_manifest(params={}, started="", status="completed", artefacts=[], base=tmp_path)
    assert (told["gpu"], told["audio"]) == ({"driver": "1"}, {"c": "f"})


def test_benchmarks_publish_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    publish(figure=1)
    told = json.loads(capsys.readouterr().out)
    assert told["git_commit"] == git_commit()
    assert {"measurement_version", "machine", "versions", "environment", "gpu"} <= set(told)
    for path in Path(*benchmarks.__path__).rglob("*.py"):  # nobody has a header of his own
        assert "system_info import" not in path.read_text(encoding="utf-8"), path
