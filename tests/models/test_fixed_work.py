"""With random weights each backend does the same work: exactly the tokens that it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

from hybridlab import catalog
from hybridlab.audio import Samples, windows
from hybridlab.devices import CpuDevice
from hybridlab.models import ModelSpec, SpeechRecognizer, TranscribeOptions, make_asr

pytestmark = pytest.mark.slow

#: More than one window, so that none has its tokens of another.
AUDIO_S = 40.0


@pytest.fixture(scope="module")
def sound() -> Samples:
    noise = np.random.default_rng(0).normal(size=round(AUDIO_S * catalog.SAMPLE_RATE_HZ))
    return (0.1 * noise).astype(np.float32)


@pytest.fixture(scope="module", params=list(catalog.BACKENDS))
def whisper(request: pytest.FixtureRequest) -> Iterator[SpeechRecognizer]:
    backend = catalog.backend(request.param)
    if find_spec(backend.module) is None:
        pytest.skip(f"{backend.name} is not installed")
    spec = ModelSpec(model="tiny", backend=backend.name, weights="random", dtype="float32", seed=1)
    model = make_asr(spec, CpuDevice())
    model.load()
    yield model
    model.unload()


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("tokens", [4, 32, 64])
def test_every_window_has_exactly_its_tokens(
    whisper: SpeechRecognizer, sound: Samples, tokens: int, beams: int
) -> None:
    options = TranscribeOptions(max_new_tokens=tokens, beams=beams)
    (said,) = whisper.transcribe([sound], options)
    assert len(windows(sound)) == len(said.windows) == 2
    assert [len(segment.tokens) for segment in said.segments] == [tokens, tokens]
    assert len(said.tokens) == 2 * tokens
    assert set(said.windows) == {"stop"}  # fixed work is not cut short


def test_without_a_limit_a_window_is_filled(whisper: SpeechRecognizer, sound: Samples) -> None:
    """All the room behind a prompt of four."""
    (said,) = whisper.transcribe([windows(sound)[0]], TranscribeOptions())
    assert len(said.tokens) == catalog.WHISPER_MAX_TARGET_POSITIONS - 4
