"""The real pocket pool in workers, without HTTP: every way of sharing that a CPU has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest

from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.errors import HybridlabError
from hybridlab.models import AudioLanguageModel, SpeechRecognizer
from hybridlab.models.base import GenerationResult, ModelSpec
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.server.audio_decoder import decode_audio
from hybridlab.server.engine import Engine
from hybridlab.server.jobs import (
    BatchResult,
    DecodedAudio,
    InferenceJob,
    InferenceParams,
    InferenceResult,
)
from hybridlab.server.model_client import WorkerModelClient
from hybridlab.server.model_pool import ModelPool
from hybridlab.server.settings import Role, Settings
from tests.models.conftest import spec
from tests.server.fakes import InProcessDecoder, silence, until

pytestmark = pytest.mark.usefixtures("case_server")
CLIPS = {clip.id: clip for clip in load_clips()}
QUESTION = "What is said?"


def settings(**options: object) -> Settings:
    return Settings.from_mapping({"device": "cpu", **options})


@pytest.mark.parametrize(
    ("strategy", "variant"),
    [
        ("solo", "two-requests"),
        ("sequential", "empty-cache"),
        ("parallel", "processes"),
        ("swapping", "reload-cached"),
        ("swapping", "single-buffer"),
    ],
)
def test_texts_are_those_of_the_models_alone(
    alone: tuple[SpeechRecognizer, AudioLanguageModel], strategy: str, variant: str
) -> None:
    ear, mind = alone
    clips = [CLIPS["clip-04"], CLIPS["clip-11"]]

    async def scene(pool: ModelPool) -> None:
        engine = Engine(pool.settings)
        engine.attach(pool.schedulers(), InProcessDecoder())
        await engine.load()
        pool.measure_budget()
        engine.run()
        role: Role = "asr" if "asr" in engine.schedulers else "llm"
        sounds = [decode_audio(clip.path.read_bytes(), 100) for clip in clips]
        heard = [InferenceParams(role=role, kind="transcription", audio=sound) for sound in sounds]
        asked = [
            InferenceParams(
                role="llm",
                kind="answer",
                audio=sound,
                question=QUESTION,
                options=TranscribeOptions(max_new_tokens=40),
            )
            for sound in sounds
        ]
        jobs = engine.submit(*heard, *asked)
        said = [(await job.future).text for job in jobs]
        kept = role == "asr" and strategy != "swapping"
        await until(lambda: (pool.memory.owners(idle=True).get("asr weights", 0) > 0) == kept)
        assert pool.memory.owners(idle=True)["llm weights"] > 10**6
        await engine.stop()
        expected = ear if role == "asr" else mind
        samples = [sound.samples for sound in sounds]
        most = [job.max_new_tokens for job in jobs]
        assert said[:2] == [
            expected.transcribe([audio], TranscribeOptions(max_new_tokens=tokens))[0].text
            for audio, tokens in zip(samples, most, strict=False)
        ]
        assert said[2:] == [
            mind.answer([audio], [QUESTION], max_new_tokens=40)[0].text for audio in samples
        ]

    with closing(ModelPool(settings(strategy=strategy, variant=variant))) as pool:
        asyncio.run(asyncio.wait_for(scene(pool), 60))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"strategy": "swapping", "variant": "pinned"}, "use single-buffer"),
        ({"strategy": "parallel", "variant": "whisper-on-cpu"}, "is the CPU already"),
        ({"strategy": "sequential", "variant": "expandable-segments"}, "CUDA allocator"),
        ({"asr_weights": "local", "asr_path": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_this_machine_lacks_is_one_line(options: dict[str, object], why: str) -> None:
    with (
        pytest.raises(HybridlabError, match=why) as caught,
        closing(ModelPool(settings(**options))) as pool,
    ):
        for model in pool.models:
            model.load()
    assert "\n" not in str(caught.value)


def test_a_smaller_whisper_detects_the_language_that_it_lacks() -> None:
    """Those below large-v3 have no Cantonese; the model that was asked refuses what it lacks."""
    remote = Remote([])
    specs = [spec(size, weights="random") for size in ("large-v3", "medium")]
    variant = catalog.variant("sequential", "plain")
    client = WorkerModelClient(remote, "asr", specs, variant)  # type: ignore[arg-type]

    async def ask(language: str) -> None:
        await client.infer([transcription(silence(), language=language)])

    async def scene() -> None:
        await ask("yue")
        client.active = 1
        await ask("yue")
        await ask("de")

    asyncio.run(scene())
    assert [options.language for _, options in remote.calls] == ["yue", "", "de"]
    with pytest.raises(HybridlabError, match="medium does not know"):
        WorkerModelClient(remote, "asr", specs[1:], variant).language("yue")  # type: ignore[arg-type]


def test_a_streamed_transcript_tells_each_window_before_the_next_is_read() -> None:
    """Two clients at once, of three windows and of one; the second's middle one has no words."""
    remote = Remote(["one", "two", "", "three"])
    variant = catalog.variant("sequential", "plain")
    client = WorkerModelClient(remote, "asr", [spec("base", weights="random")], variant)  # type: ignore[arg-type]
    long = DecodedAudio(np.zeros(30, np.float32), (10, 20))
    log: list[object] = []

    def told(pieces: Sequence[str]) -> bool:
        log.append((len(remote.calls), *pieces))
        return True

    async def scene() -> BatchResult:
        return await client.infer([transcription(long), transcription(silence())], told)

    texts = asyncio.run(scene()).texts
    assert log == [(1, "one", "two"), (2, "", ""), (3, " three", "")]
    assert [[row.text for row in own] for own in texts] == [["one", "", "three"], ["two"]]
    remote.calls.clear()
    remote.texts[:] = ["one", "two"]

    async def unread() -> BatchResult:
        return await client.infer([transcription(long), transcription(silence())], lambda _: False)

    assert len(asyncio.run(unread()).texts) == 2
    assert len(remote.calls) == 1


def test_a_transcript_that_is_not_streamed_is_read_in_one_call() -> None:
    remote = Remote(["one", "two", "three", "four"])
    variant = catalog.variant("sequential", "plain")
    client = WorkerModelClient(remote, "asr", [spec("base", weights="random")], variant)  # type: ignore[arg-type]
    long = DecodedAudio(np.zeros(30, np.float32), (10, 20))

    async def scene() -> BatchResult:
        return await client.infer([transcription(long), transcription(silence())])

    texts = asyncio.run(scene()).texts
    assert [[row.text for row in own] for own in texts] == [["one", "two", "three"], ["four"]]
    assert [windows for windows, _ in remote.calls] == [4]


@pytest.mark.parametrize(
    ("facts", "translates", "tells_times"),
    [
        ({"model": "base", "weights": "hub"}, True, True),
        ({"model": "base", "weights": "hub", "asr_decoding": "plain"}, True, False),
        ({"model": "base", "weights": "random"}, True, False),
        ({"model": "turbo", "weights": "hub"}, False, True),
        ({"model": "distil-large-v3", "weights": "hub"}, False, True),
        ({"model": "tiny.en", "weights": "hub"}, False, True),
        ({"model": "pocket-m", "weights": "pocket"}, True, False),
    ],
)
def test_what_a_whisper_can_is_told_by_its_size_and_decoding(
    facts: dict[str, str], translates: bool, tells_times: bool
) -> None:
    specs = [ModelSpec(backend="openai-whisper", dtype="float32", **facts)]  # type: ignore[arg-type]
    variant = catalog.variant("sequential", "plain")
    client = WorkerModelClient(Remote([]), "asr", specs, variant)  # type: ignore[arg-type]
    assert (client.translates, client.tells_times) == (translates, tells_times)


def test_how_the_asr_decodes_is_an_option() -> None:
    with closing(ModelPool(settings(only="asr", asr_decoding="timestamps"))) as pool:
        (model,) = pool.models
        assert [one.asr_decoding for one in model.specs] == ["timestamps", "timestamps"]
        assert model.tells_times


class Remote:
    """A worker that says these texts, window by window, or 'x' where there are none."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.calls: list[tuple[int, TranscribeOptions]] = []

    async def ask_async(
        self, _: str, pieces: Sequence[object], options: TranscribeOptions, **__: object
    ) -> list[GenerationResult]:
        self.calls.append((len(pieces), options))
        said = [self.texts.pop(0) if self.texts else "x" for _ in pieces]
        return [GenerationResult(text, ()) for text in said]

    def drain_spans(self) -> list[object]:
        return []


def transcription(audio: DecodedAudio, *, language: str = "en") -> InferenceJob:
    params = InferenceParams(
        role="asr", kind="transcription", audio=audio, options=TranscribeOptions(language=language)
    )
    future: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
    return InferenceJob(params=params, max_new_tokens=4, future=future)
