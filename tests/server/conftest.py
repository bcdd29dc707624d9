"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.endurance.server import Running, started
from benchmarks.serve import pocket_pair
from hybridlab.models import AudioLanguageModel, SpeechRecognizer
from hybridlab.server.settings import TOKEN_VARIABLE

TOKEN = "secret"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """The server asks for this one."""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    return TOKEN


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """`hybridlab serve` on the pocket pair, as a process of its own."""
    with started() as running:
        yield running


@pytest.fixture(scope="session")
def alone() -> tuple[SpeechRecognizer, AudioLanguageModel]:
    """The pocket pair by itself, in this process."""
    asr, llm = pocket_pair()
    asr.load()
    llm.load()
    return asr, llm
