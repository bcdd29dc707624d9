"""`hybridlab fetch` and the fetching of `hybridlab run`, as they are typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hub import repositories as r
from tests.hub.server import Fault, Hub

SMALL = ("config.json", "generation_config.json", "preprocessor_config.json")
#: As the released repositories are listed: what is loaded, and what is not.
RELEASED = {
    f"openai/whisper-{size}": {
        **dict.fromkeys((*SMALL, "vocab.json", "merges.txt", "tokenizer_config.json"), 200_000),
        "tokenizer.json": 2_480_466,
        **dict.fromkeys(("model.safetensors", *r.DECOYS), n_bytes),
    }
    for size, n_bytes in (("tiny", 151_061_672), ("base", 290_403_936), ("small", 966_995_080))
} | {
    r.VOXTRAL: {
        **dict.fromkeys(SMALL, 1_000),
        "tekken.json": 14_894_206,
        "model-00001-of-00002.safetensors": 4_980_000_000,
        "model-00002-of-00002.safetensors": 4_370_000_000,
        "model.safetensors.index.json": 68_000,
        "consolidated.safetensors": 9_350_000_000,
        "params.json": 1_000,
    }
}


@pytest.fixture
def environment(machine: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **machine}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "hybridlab.cli", *map(str, arguments)]


def said(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text("asr_model: tiny\nasr_backend: transformers\nasr_weights: hub\n")
    return path


def test_the_released_pair_on_a_cpu_is_told_to_the_byte(
    hub: Hub, environment: dict[str, str]
) -> None:
    """The preset `cpu-real`, whose weights are not here to be run."""
    hub.listed = RELEASED
    found = said(environment, "fetch", "cpu-real", "--dry-run", "--json")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    needed = {
        name: {file: n for file, n in files.items() if not _is_left(file)}
        for name, files in RELEASED.items()
    }
    assert {one["repository"]: one["files"] for one in told["checkpoints"]} == needed
    total = sum(sum(files.values()) for files in needed.values())
    assert told["bytes"] == told["missing_bytes"] == total
    assert 10.7e9 < total < 10.9e9
    assert hub.bodies() == []


def _is_left(name: str) -> bool:
    return name in (*r.DECOYS, "consolidated.safetensors", "params.json")


def test_weights_for_own_audio_are_fetched_before_there_is_any(
    hub: Hub, environment: dict[str, str]
) -> None:
    arguments = ("-p", "asr_model", "tiny", "--only", "00", "--dry-run")
    found = said(environment, "fetch", "own-audio", *arguments)
    assert found.returncode == 0, found.stderr
    assert r.WHISPER in found.stdout
    refused = said(environment, "run", "own-audio", "--only", "00")
    assert "parameter audio has to be given" in refused.stderr


@pytest.mark.parametrize(
    ("verb", "advice"),
    [
        ("fetch", "what has arrived whole is kept; the same line goes on"),
        ("run", "no run has begun; what has arrived of weights is kept"),
    ],
)
def test_an_interrupt_while_weights_come_says_what_goes_on(
    hub: Hub, environment: dict[str, str], preset: Path, tmp_path: Path, verb: str, advice: str
) -> None:
    """A folder to resume there is none yet."""
    hub.faults.append(Fault("GET /cdn/", delay_s=20.0))
    output = ("--output", tmp_path / "run") if verb == "run" else ()
    process = subprocess.Popen(
        command(verb, preset, "--only", "00", *output),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while "model.safetensors" not in hub.bodies():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told.splitlines()[-1] == f"hybridlab: interrupted; {advice}"
    assert not (tmp_path / "run").exists()
    hub.faults.clear()
    assert said(environment, "fetch", preset, "--only", "00").returncode == 0
    left = [*Path(environment["HF_HOME"]).rglob("*.incomplete")]
    assert left == []
