"""Strategies over fake tenants: who runs when, what is resident, what is recorded."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hybridlab.audio import Samples
from hybridlab.device import CpuDevice
from hybridlab.errors import ParameterError
from hybridlab.strategies import STRATEGIES, Request, make_strategy
from hybridlab.strategies.swapping import MOVERS
from hybridlab.tenants.base import Analyst, TenantSpec, Text, Transcriber

SPEC = TenantSpec(model="x", backend="transformers", weights="pocket", dtype="float32")


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
        *,
        language: str = "en",
        max_new_tokens: int = 224,
        beams: int = 1,
    ) -> list[Text]:
        assert self._is_loaded
        thread = "main" if threading.current_thread() is threading.main_thread() else "other"
        self.log.append((self.name, f"transcribe {thread}"))  # type: ignore[attr-defined]
        return [Text("one", (1,)) for _ in batch]


class FakeWhisper(_Fake, Transcriber):
    pass


class FakeVoxtral(_Fake, Analyst):
    def answer(
        self, batch: Sequence[Samples], questions: Sequence[str], *, max_new_tokens: int = 200
    ) -> list[Text]:
        assert self._is_loaded
        self.log.append((self.name, "answer"))
        return [Text(question, (2,)) for question in questions]


def serve(strategy: str, variant: str, count: int = 2, **options: object) -> list[tuple[str, str]]:
    log: list[tuple[str, str]] = []
    made = make_strategy(
        strategy,
        variant,
        transcriber=FakeWhisper(log),
        analyst=FakeVoxtral(log),
        options=dict(options),
    )
    made.open()
    for number in range(count):
        request = Request(id=str(number), samples=np.zeros(16_000, np.float32), question="why")
        served = made.serve(request)
        assert served.transcript.text == "one"
        assert served.answer.text == "why"
        assert served.latency_s >= 0
    made.close()
    assert not any(tenant.loaded for tenant in made.tenants)
    return log


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_variant_serves_and_gives_everything_back(name: str) -> None:
    moved = set(MOVERS) - {"reload-warm"}  # need real weights: test_swapping.py
    for variant in set(STRATEGIES[name].variants) - moved:
        log = serve(name, variant)
        loads = sum(what == "load" for _, what in log)
        assert loads == sum(what == "unload" for _, what in log) >= 1


def test_sequential_loads_once_and_runs_whisper_first() -> None:
    log = serve("sequential", "plain", count=1)
    assert log[:2] == [("voxtral", "load"), ("whisper", "load")]
    assert log[2:4] == [("whisper", "transcribe main"), ("voxtral", "answer")]


def test_whisper_can_be_loaded_first() -> None:
    log: list[tuple[str, str]] = []
    made = make_strategy(
        "sequential", "plain", transcriber=FakeWhisper(log), analyst=FakeVoxtral(log)
    )
    made.load_order = "whisper-first"
    made.open()
    assert log == [("whisper", "load"), ("voxtral", "load")]


def test_solo_never_loads_whisper() -> None:
    assert {tenant for tenant, _ in serve("solo", "naive")} == {"voxtral"}


def test_parallel_runs_whisper_on_another_thread() -> None:
    assert ("whisper", "transcribe other") in serve("parallel", "threads")


def test_swapping_whisper_keeps_voxtral_resident() -> None:
    log = serve("swapping", "reload-warm", count=3)
    assert log.count(("whisper", "load")) == 3
    assert log.count(("voxtral", "load")) == 1


def test_swapping_both_never_has_two_resident() -> None:
    resident: set[str] = set()
    for tenant, what in serve("swapping", "reload-warm", count=2, swap="both"):
        if what == "load":
            resident.add(tenant)
        elif what == "unload":
            resident.discard(tenant)
        assert len(resident) <= 1


def test_unknown_names_are_refused() -> None:
    log: list[tuple[str, str]] = []
    with pytest.raises(ParameterError, match="did you mean 'sequential'"):
        make_strategy("sequentail", "plain", transcriber=None, analyst=FakeVoxtral(log))
    with pytest.raises(ParameterError, match="unknown variant of parallel"):
        make_strategy("parallel", "magic", transcriber=None, analyst=FakeVoxtral(log))


def test_a_strategy_without_its_transcriber_says_so() -> None:
    made = make_strategy("sequential", "plain", transcriber=None, analyst=FakeVoxtral([]))
    with pytest.raises(ParameterError, match="needs a transcriber"):
        _ = made.transcriber
