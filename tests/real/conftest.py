"""Released weights of Whisper base and what is said to it. `make test-real` runs these tests; an
ordinary run leaves them out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from benchmarks import speech
from hybridlab.errors import UnavailableError
from hybridlab.models import SpeechRecognizer
from tools import real_speech, real_whisper


@pytest.fixture(scope="session", autouse=True)
def _speech() -> None:
    try:
        real_speech.check_packages()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder in hub format, fetched once for each user, by a program that may use a network: in
    this process the hub is switched off."""
    ended = subprocess.run(
        [sys.executable, "-m", "tools.real_whisper"],
        check=False,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"},
        cwd=Path(__file__).parents[2],
    )
    if ended.returncode == real_whisper.NOT_TO_BE_HAD:
        pytest.skip(ended.stderr.strip())
    assert ended.returncode == 0, ended.stderr
    return Path(ended.stdout.strip())


@pytest.fixture(scope="session")
def recognizer(weights: Path) -> Callable[..., SpeechRecognizer]:
    """Whisper base of a backend in float32, loaded once; `fields` are of its `ModelSpec`."""

    @cache
    def loaded(backend: str, **fields: str) -> SpeechRecognizer:
        if backend == "faster-whisper":
            pytest.importorskip("faster_whisper", reason="the extra ct2 is not installed")
        return speech.loaded(backend, weights, **fields)

    return loaded
