"""The real pocket pair in workers, without HTTP: every way of sharing that a CPU has."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.errors import HybridlabError
from hybridlab.models import Analyst, TenantSpec, Transcriber, make_analyst, make_transcriber
from hybridlab.server.engine import Engine, Wish
from hybridlab.server.pair import Pair
from hybridlab.server.settings import Settings
from hybridlab.server.uploads import decode_sound
from tests.server.fakes import until

pytestmark = pytest.mark.usefixtures("case_server")
CLIPS = {clip.id: clip for clip in load_clips()}
QUESTION = "What is said?"


@pytest.fixture(scope="module")
def alone() -> Iterator[tuple[Transcriber, Analyst]]:
    """The tenants by themselves, in this process."""
    ear = make_transcriber(
        TenantSpec(model="pocket-m", backend="openai-whisper", weights="pocket", dtype="float32"),
        CpuDevice(),
    )
    mind = make_analyst(
        TenantSpec(model="pocket", backend="transformers", weights="pocket", dtype="float32"),
        CpuDevice(),
    )
    ear.load()
    mind.load()
    yield ear, mind
    ear.unload()
    mind.unload()


def settings(**options: object) -> Settings:
    return Settings.from_mapping({"device": "cpu", **options})


@pytest.mark.parametrize(
    ("strategy", "variant"),
    [
        ("solo", "naive"),
        ("sequential", "empty-cache"),
        ("parallel", "processes"),
        ("swapping", "reload-warm"),
        ("swapping", "arena"),
    ],
)
def test_texts_are_those_of_the_tenants_alone(
    alone: tuple[Transcriber, Analyst], strategy: str, variant: str
) -> None:
    ear, mind = alone
    clips = [CLIPS["clip-04"], CLIPS["clip-11"]]

    async def scene(pair: Pair) -> None:
        engine = Engine(pair.lanes(), queue=16, request_timeout_s=60)
        await engine.load()
        pair.measure_room()
        engine.start()
        ears = "whisper" if "whisper" in engine.lanes else "voxtral"
        sounds = [decode_sound(clip.path.read_bytes(), 100) for clip in clips]
        heard = [Wish(tenant=ears, kind="transcription", sound=sound) for sound in sounds]
        asked = [
            Wish(tenant="voxtral", kind="answer", sound=sound, question=QUESTION, max_new_tokens=40)
            for sound in sounds
        ]
        jobs = engine.submit(*heard, *asked)
        said = [(await job.future).text for job in jobs]
        await engine.drain()
        kept = ears == "whisper" and strategy != "swapping"
        await until(lambda: (pair.memory.owners(idle=True).get("whisper weights", 0) > 0) == kept)
        assert pair.memory.owners(idle=True)["voxtral weights"] > 10**6
        await engine.close()
        expected = ear if ears == "whisper" else mind
        samples = [sound.samples for sound in sounds]
        most = [job.max_new_tokens for job in jobs]
        assert said[:2] == [
            expected.transcribe([audio], max_new_tokens=tokens)[0].text
            for audio, tokens in zip(samples, most, strict=False)
        ]
        assert said[2:] == [
            mind.answer([audio], [QUESTION], max_new_tokens=40)[0].text for audio in samples
        ]

    pair = Pair(settings(strategy=strategy, variant=variant))
    try:
        asyncio.run(asyncio.wait_for(scene(pair), 60))
    finally:
        pair.close()


def test_a_smaller_model_takes_the_place_of_a_larger_in_a_fresh_worker() -> None:
    pair = Pair(settings(only="whisper"))
    try:
        (tenant,) = pair.tenants
        tenant.open()
        first = tenant.remote.worker.pid
        large = tenant.remote.weights_bytes()
        tenant.use(1)
        small = tenant.remote.weights_bytes()
        assert large is not None
        assert small is not None
        assert small < large
        assert tenant.remote.worker.pid != first
        assert tenant.models == ["whisper-pocket-m", "whisper-pocket-s"]
        tenant.clean()
        assert 0 <= (tenant.fragmentation() or 0) <= 1
    finally:
        pair.close()


def test_the_end_of_one_worker_is_not_the_other_s() -> None:
    pair = Pair(settings())
    try:
        voxtral, whisper = pair.tenants
        voxtral.open()
        whisper.open()
        pid, other = voxtral.remote.worker.pid, whisper.remote.worker.pid
        assert pid is not None
        assert other is not None
        os.kill(other, signal.SIGKILL)
        whisper.use(0)
        assert voxtral.fragmentation() is not None
        assert voxtral.remote.worker.pid == pid
        os.kill(pid, signal.SIGKILL)
        voxtral.use(0)
        assert whisper.fragmentation() is not None
    finally:
        pair.close()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"strategy": "swapping", "variant": "pinned"}, "use arena"),
        ({"strategy": "parallel", "variant": "whisper-on-cpu"}, "is the CPU already"),
        ({"strategy": "sequential", "variant": "expandable-segments"}, "CUDA allocator"),
        ({"whisper_weights": "local", "whisper_path": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_this_machine_lacks_is_one_line(options: dict[str, object], why: str) -> None:
    with pytest.raises(HybridlabError, match=why) as caught:
        pair = Pair(settings(**options))
        try:
            for tenant in pair.tenants:
                tenant.open()
        finally:
            pair.close()
    assert "\n" not in str(caught.value)
