"""`hybridlab try`: own files through every backend; what is refused before anything is loaded."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

import hybridlab
from hybridlab import catalog
from hybridlab.audio import Clip, load_clips
from hybridlab.cli.commands import app
from hybridlab.errors import ParameterError, WeightsError
from hybridlab.experiments import transcription
from hybridlab.models import ModelSpec, source
from hybridlab.models.checkpoint import Checkpoint
from hybridlab.models.pocket import pocket_dir
from hybridlab.units import MIB

SHORTEST, OTHER = sorted(load_clips(), key=lambda clip: clip.audio_s)[:2]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["try", *map(str, arguments)])


def nothing_is_loaded(*_: object) -> None:
    raise AssertionError("a process was started")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The small Whisper as a folder of the reader's."""
    return shutil.copytree(pocket_dir("pocket-m"), tmp_path / "weights")


@pytest.mark.slow
@pytest.mark.usefixtures("case_server")
def test_every_backend_says_what_is_said_in_every_file(weights: Path) -> None:
    clips: list[Clip] = [SHORTEST, OTHER]
    arguments = ("--model", "pocket-m", "--weights", weights, "--device", "cpu")
    ended = run(*(clip.path for clip in clips), *arguments, "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert (found["weights"], found["warning"]) == (str(weights), catalog.POCKET_WORDS)
    assert [file["path"] for file in found["files"]] == [str(clip.path) for clip in clips]
    assert [one["backend"] for one in found["backends"]] == list(catalog.BACKENDS)
    ran = [one for one in found["backends"] if not one["reason"]]
    assert len(ran) >= 2
    for one in ran:
        assert one["request_peak_bytes"] > one["process_baseline_bytes"] + MIB
        assert one["load_s"] > 0
        for clip, said in zip(clips, one["transcripts"], strict=True):
            assert (said["text"], said["language"]) == (clip.text, "en")
            assert said["finish_reason"] == "stop"
            assert said["rtfx"] == pytest.approx(clip.audio_s / said["seconds"], rel=1e-3)
    shown = run(SHORTEST.path, *arguments)
    assert shown.exit_code == 0
    assert catalog.POCKET_WORDS in shown.stdout
    assert shown.stdout.count(str(SHORTEST.text)) == 1  # all say the same
    for one in ran:
        (row,) = re.findall(rf"\n({one['backend']} .*)", shown.stdout)
        # took, RTFx, memory, loaded in: as every other row has them
        assert re.search(r" \d+\.\d\d s +[\d.,]+ +\d+ MiB +\d+\.\d\d s ", row), row
    assert "RTFx" in shown.stdout and "MiB" in shown.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("case_server")
def test_a_backend_that_fails_says_why_and_the_others_go_on(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "is_installed", lambda spec: spec.backend != "faster-whisper")
    lines = ("--model", "pocket-m", "--weights", weights, "--device", "cpu")
    config = json.loads((weights / "config.json").read_text())
    config["activation_function"] = "none such"  # transformers alone reads it
    (weights / "config.json").write_text(json.dumps(config))
    ended = run(SHORTEST.path, *lines)
    assert ended.exit_code == 0, ended.output
    assert "transformers: " in ended.stdout and str(SHORTEST.text) in ended.stdout
    assert "faster-whisper: backend faster-whisper is not installed; pip install" in ended.stdout
    (weights / "model.safetensors").write_bytes(b"cut off")
    ended = run(SHORTEST.path, *lines)
    assert ended.exit_code == 1
    assert "openai-whisper: " in ended.stdout and "RTFx" not in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.wav",), "audio file 'none.wav' does not exist"),
        ((__file__,), "cannot be decoded"),
        ((Path(__file__).parent,), "is a folder; name the files in it"),
        ((SHORTEST.path, "--model", "bas"), "did you mean 'base'"),
        ((SHORTEST.path, "--language", "klingon"), "'klingon' is not known"),
        ((SHORTEST.path, "--model", "tiny.en", "--language", "de"), "choose 'tiny'"),
        ((SHORTEST.path, "--weights", Path(__file__).parent), "no config.json in it"),
        ((SHORTEST.path, "--weights", pocket_dir("pocket-m")), "is not a base: it has"),
        ((SHORTEST.path, "--device", "simulated:t4"), "a simulated card says no words"),
    ],
)
def test_what_is_refused_is_one_line_before_anything_is_loaded(
    arguments: tuple[str | Path, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcription, "Worker", nothing_is_loaded)
    ended = run(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("hybridlab: ") and message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_one_bad_file_among_good_ones_is_named_and_the_others_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def result(spec: ModelSpec, *_: object) -> transcription.BackendResult:
        said = transcription.Transcript(
            text="hello", language="en", finish_reason="stop", seconds=1.0, rtfx=1.0
        )
        return transcription.BackendResult(
            backend=spec.backend, dtype=spec.dtype, transcripts=(said,)
        )

    monkeypatch.setattr(transcription, "_in_process", result)
    (tmp_path / "empty.m4a").touch()
    ended = run("none.wav", SHORTEST.path, tmp_path / "empty.m4a", "--model", "pocket-s")
    assert ended.exit_code == 0, ended.output
    assert "left out: audio file 'none.wav' does not exist" in ended.stdout
    assert f"left out: {tmp_path / 'empty.m4a'} is empty (0 bytes)" in ended.stdout
    assert str(SHORTEST.path) in ended.stdout and "hello" in ended.stdout


def test_weights_that_are_not_to_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise WeightsError("the hub did not answer")

    monkeypatch.setattr(transcription, "Worker", nothing_is_loaded)
    monkeypatch.setattr(transcription, "fetch", refuse)
    ended = run(SHORTEST.path)
    assert (ended.exit_code, ended.stderr) == (2, "hybridlab: the hub did not answer\n")


def test_one_checkpoint_is_fetched_for_all_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pocket_dir("pocket-m")
    asked: list[ModelSpec] = []

    def fetch(specs: list[ModelSpec], *, listener: object) -> list[Checkpoint]:
        asked.extend(specs)
        return [Checkpoint("openai/whisper-base", "c0ffee", folder, {})]

    monkeypatch.setattr(transcription, "Worker", nothing_is_loaded)
    monkeypatch.setattr(transcription, "fetch", fetch)
    ended = run(SHORTEST.path)
    assert ended.stderr.startswith(f"hybridlab: {folder} is not a base: it has")  # so it was read
    assert [(one.model, one.backend, one.weights) for one in asked] == [
        ("base", "transformers", "hub")
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("case_server")
def test_python_gets_the_same_with_each_backend_told_before_it_begins() -> None:
    told: list[str] = []
    found = hybridlab.transcribe([SHORTEST.path], model="pocket-s", listener=told.append)
    assert [one.backend for one in found.ran] == told
    assert {one.transcripts[0].language for one in found.ran} == {"en"}
    assert found.weights == "pocket" and found.as_dict() == asdict(found)
    with pytest.raises(ParameterError, match="no file was named"):
        hybridlab.transcribe([])
