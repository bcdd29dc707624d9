"""The real pocket pool in workers, without HTTP: every way of sharing that a CPU has."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from hybridlab.audio import load_clips
from hybridlab.errors import HybridlabError
from hybridlab.models import AudioLanguageModel, SpeechRecognizer
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.server.audio_decoder import decode_audio
from hybridlab.server.engine import Engine
from hybridlab.server.jobs import InferenceParams
from hybridlab.server.model_pool import ModelPool
from hybridlab.server.settings import Role, Settings
from tests.server.fakes import InProcessDecoder, until

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
                role="llm", kind="answer", audio=sound, question=QUESTION, max_new_tokens=40
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
