"""Strategies over fake models: who runs when, what is resident, what is recorded."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.devices import CpuDevice
from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.models.base import (
    AudioLanguageModel,
    GenerationResult,
    ModelSpec,
    PrefilledAudio,
    SpeechRecognizer,
)
from hybridlab.models.transcription import DEFAULT_OPTIONS, TranscribeOptions
from hybridlab.strategies import (
    ArrivalQueue,
    CompletedRequest,
    Request,
    Strategy,
    make_strategy,
)

SPEC = ModelSpec(model="x", backend="transformers", weights="pocket", dtype="float32")


class _Fake:
    """Counts loads, notes the thread of each call."""

    _is_loaded = False

    def __init__(self, log: list[tuple[str, str]]) -> None:
        super().__init__(SPEC, CpuDevice())  # type: ignore[call-arg]
        self.log = log

    @property
    def loaded(self) -> bool:
        return self._is_loaded

    def load(self) -> None:
        assert not self._is_loaded
        self._is_loaded = True
        self.log.append((self.name, "load"))  # type: ignore[attr-defined]

    def unload(self) -> None:
        self._is_loaded = False
        self.log.append((self.name, "unload"))  # type: ignore[attr-defined]

    def module(self) -> Any:
        return None

    def transcribe(
        self,
        batch: Sequence[Samples],
        options: TranscribeOptions = DEFAULT_OPTIONS,
    ) -> list[GenerationResult]:
        assert self._is_loaded
        thread = "main" if threading.current_thread() is threading.main_thread() else "other"
        self.log.append((self.name, f"transcribe {thread}"))  # type: ignore[attr-defined]
        return [GenerationResult("one", (1,)) for _ in batch]


class FakeWhisper(_Fake, SpeechRecognizer):
    pass


class FakeVoxtral(_Fake, AudioLanguageModel):
    def answer(
        self, batch: Sequence[Samples], questions: Sequence[str], *, max_new_tokens: int = 200
    ) -> list[GenerationResult]:
        assert self._is_loaded
        self.log.append((self.name, f"answer {len(batch)}" if len(batch) > 1 else "answer"))
        return [GenerationResult(question, (2,)) for question in questions]

    def prefill(self, samples: Samples) -> PrefilledAudio:
        self.log.append((self.name, "prefill"))
        return FakeHeard()


class FakeHeard(PrefilledAudio):
    def transcribe(self, options: TranscribeOptions = DEFAULT_OPTIONS) -> GenerationResult:
        return GenerationResult("one", (1,))

    def answer(self, question: str, *, max_new_tokens: int = 200) -> GenerationResult:
        return GenerationResult(question, (2,))


def made(name: str, variant: str, **options: object) -> tuple[Strategy, list[tuple[str, str]]]:
    """The strategy over fakes, and what they note."""
    log: list[tuple[str, str]] = []
    models = FakeWhisper(log), FakeVoxtral(log)
    return make_strategy(name, variant, asr=models[0], llm=models[1], options=options), log


def requests(count: int) -> list[Request]:
    return [
        Request(id=str(number), samples=np.zeros(16_000, np.float32), question=f"why {number}")
        for number in range(count)
    ]


def serve(name: str, variant: str, count: int = 2, **options: object) -> list[tuple[str, str]]:
    strategy, log = made(name, variant, **options)
    strategy.open()
    for request in requests(count):
        served = strategy.serve(request)
        assert (served.transcript.text, served.answer.text) == ("one", request.question)
        assert served.latency_s >= 0
    strategy.close()
    assert not any(model.loaded for model in strategy.models)
    return log


def streaming(name: str, variant: str, **options: object) -> tuple[Strategy, list[tuple[str, str]]]:
    strategy, log = made(name, variant, **options)
    strategy.open()
    log.clear()
    return strategy, log


@pytest.mark.parametrize("name", catalog.STRATEGIES)
def test_every_variant_serves_and_gives_everything_back(name: str) -> None:
    for facts in catalog.strategy(name):
        variant = facts.name
        if variant == "streams" or facts.host_copy or variant == "reload-from-disk":
            continue  # a CPU has none; these need real weights: test_swapping.py
        if facts.expands_segments:
            with pytest.raises(UnavailableError, match="CUDA"):
                serve(name, variant)
            continue
        log = serve(name, variant)
        loads = sum(what == "load" for _, what in log)
        assert loads == sum(what == "unload" for _, what in log) >= 1


@pytest.mark.parametrize(
    ("arm", "order"),
    [
        ("sequential/plain", ["llm load", "asr load", "asr transcribe main", "llm answer"]),
        ("solo/two-requests", ["llm load", "llm transcribe main", "llm answer", "llm unload"]),
        ("solo/shared-prefix", ["llm load", "llm prefill", "llm unload"]),
        (
            "swapping/reload-cached",
            ["llm load", "asr load", "asr transcribe main", "asr unload", "llm answer"],
        ),
    ],
)
def test_who_is_loaded_and_runs_when(arm: str, order: list[str]) -> None:
    log = serve(*arm.split("/"), count=1)
    assert [f"{role} {what}" for role, what in log][: len(order)] == order


def test_the_recogniser_can_be_loaded_first() -> None:
    strategy, log = made("sequential", "plain")
    strategy.load_order = "asr-first"
    strategy.open()
    assert log == [("asr", "load"), ("llm", "load")]


def test_parallel_runs_whisper_on_another_thread() -> None:
    assert ("asr", "transcribe other") in serve("parallel", "threads")


def test_swapping_whisper_keeps_voxtral_resident() -> None:
    log = serve("swapping", "reload-cached", count=3)
    assert (log.count(("asr", "load")), log.count(("llm", "load"))) == (3, 1)


def test_swapping_both_never_has_two_resident() -> None:
    resident: set[str] = set()
    for role, what in serve("swapping", "reload-cached", count=2, swap="both"):
        if what == "load":
            resident.add(role)
        elif what == "unload":
            resident.discard(role)
        assert len(resident) <= 1


@pytest.mark.parametrize(
    ("name", "variant", "message"),
    [
        ("sequentail", "plain", "did you mean 'sequential'"),
        ("parallel", "magic", "unknown variant of parallel"),
    ],
)
def test_unknown_names_are_refused(name: str, variant: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        made(name, variant)


def test_a_strategy_without_its_recogniser_says_so() -> None:
    strategy = make_strategy("sequential", "plain", asr=None, llm=FakeVoxtral([]))
    with pytest.raises(ParameterError, match="needs a recogniser"):
        _ = strategy.asr


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        (name, own.name)
        for name, facts in catalog.STRATEGIES.items()
        for own in facts
        if own.streams
    ],
)
def test_a_stream_serves_every_request_once(name: str, variant: str) -> None:
    before = set(threading.enumerate())
    strategy, _ = streaming(name, variant)
    served = list(strategy.stream(ArrivalQueue(requests(7))))
    strategy.close()
    assert sorted(one.request.id for one in served) == [str(number) for number in range(7)]
    assert all(one.answer.text == one.request.question for one in served)
    assert all(one.transcript.text == "one" for one in served)
    assert set(threading.enumerate()) == before


AHEAD = pytest.mark.parametrize(
    ("name", "variant"), [("pipelined", "prefetch"), ("sequential", "asyncio")]
)


@AHEAD
def test_a_fault_in_a_stream_comes_out_and_leaves_no_thread(name: str, variant: str) -> None:
    before = set(threading.enumerate())
    strategy, _ = streaming(name, variant)
    seen = itertools.count(1)

    def fail(*_: object, **__: object) -> list[GenerationResult]:
        if next(seen) == 3:
            raise MemoryError("no room")
        return [GenerationResult("one", (1,))]

    strategy.asr.transcribe = fail  # type: ignore[method-assign]
    with pytest.raises(MemoryError, match="no room"):
        list(strategy.stream(ArrivalQueue(requests(7))))
    assert set(threading.enumerate()) == before


@AHEAD
def test_whoever_leaves_a_stream_early_leaves_no_thread(name: str, variant: str) -> None:
    before = set(threading.enumerate())
    strategy, _ = streaming(name, variant)
    never = time.perf_counter() + 3600
    stream = strategy.stream(ArrivalQueue(requests(2), [0.0, never]))
    assert next(stream).request.id == "0"
    stream.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


def test_the_pipeline_hears_the_next_request_while_voxtral_answers() -> None:
    strategy, log = streaming("pipelined", "prefetch")
    heard_second = threading.Event()
    transcribe, answer = strategy.asr.transcribe, strategy.llm.answer

    def hear(*arguments: Any, **options: Any) -> list[GenerationResult]:
        texts = transcribe(*arguments, **options)
        if log.count(("asr", "transcribe other")) == 2:
            heard_second.set()
        return texts

    def reply(*arguments: Any, **options: Any) -> list[GenerationResult]:
        assert heard_second.wait(10), "Whisper waited for Voxtral"
        return answer(*arguments, **options)

    strategy.asr.transcribe = hear  # type: ignore[method-assign]
    strategy.llm.answer = reply  # type: ignore[method-assign]
    assert len(list(strategy.stream(ArrivalQueue(requests(2))))) == 2


def test_batches_take_what_is_there_and_wait_for_nobody() -> None:
    strategy, log = streaming("sequential", "batched", batch=3)
    now = time.perf_counter()
    due = [now, now, now, now, now + 0.2]
    served = list(strategy.stream(ArrivalQueue(requests(5), due)))
    assert [what for who, what in log if who == "llm"] == ["answer 3", "answer", "answer"]
    assert served[-1].start_s >= due[-1]


def test_the_orchestrator_works_where_an_event_loop_is_running_as_in_a_notebook() -> None:
    async def cell() -> list[CompletedRequest]:
        strategy, _ = streaming("sequential", "asyncio", max_in_flight=2)
        return list(strategy.stream(ArrivalQueue(requests(3))))

    assert {served.request.id for served in asyncio.run(cell())} == {r.id for r in requests(3)}


def test_one_model_at_a_time_under_the_orchestrators_lock() -> None:
    strategy, _ = streaming("sequential", "asyncio", max_in_flight=3)
    at_work, together = 0, []
    lock = threading.Lock()

    def slowly(texts: Any) -> Any:
        def work(*arguments: Any, **options: Any) -> list[GenerationResult]:
            nonlocal at_work
            with lock:
                at_work += 1
                together.append(at_work)
            time.sleep(0.002)
            with lock:
                at_work -= 1
            found: list[GenerationResult] = texts(*arguments, **options)
            return found

        return work

    strategy.asr.transcribe = slowly(strategy.asr.transcribe)  # type: ignore[method-assign]
    strategy.llm.answer = slowly(strategy.llm.answer)  # type: ignore[method-assign]
    assert len(list(strategy.stream(ArrivalQueue(requests(6))))) == 6
    assert set(together) == {1}
