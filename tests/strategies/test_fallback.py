"""The fallback chain with models that run out of memory when they are told to."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from hybridlab.models.base import ModelSpec
from hybridlab.strategies import ArrivalQueue, Request
from hybridlab.strategies.fallback import FallbackChain, FallbackEvent

OOM = "CUDA out of memory. Tried to allocate 2.00 GiB."


class Held:
    """What a failed piece of work had allocated."""


class Pair:
    """Fails while loading or at a request, by size; `batch` requests are answered together."""

    alive: ClassVar[weakref.WeakSet[Held]] = weakref.WeakSet()

    def __init__(self, size: str, fails: dict[str, str], log: list[str], batch: int) -> None:
        self.size, self.fails, self.log, self.batch = size, fails, log, batch

    def _work(self, what: str) -> None:
        held = Held()
        self.alive.add(held)
        if self.fails.get(self.size) == what:
            raise RuntimeError(OOM)

    def open(self) -> None:
        self.log.append(f"open {self.size}" + (" beside garbage" if self.alive else ""))
        self._work("load")

    @property
    def current(self) -> Pair:
        return self

    def stream(self, inbox: ArrivalQueue, *, measure: Any) -> Iterator[Any]:
        while taken := inbox.take(self.batch):
            for request in taken:
                self._work(request.id)
            for request in taken:
                yield Answered(request, f"{request.id} by {self.size}")

    def close(self) -> None:
        self.log.append(f"close {self.size}")


class Answered:
    def __init__(self, request: Request, text: str) -> None:
        self.request, self.text = request, text


def climb(
    fails: dict[str, str], *sizes: str, batch: int = 1, log: list[str] | None = None
) -> tuple[FallbackChain, list[FallbackEvent]]:
    told: list[FallbackEvent] = []
    candidates = [
        ModelSpec(model=size, backend="transformers", weights="random", dtype="float16")
        for size in sizes
    ]
    noted = [] if log is None else log
    ladder = FallbackChain(
        candidates,
        make=lambda candidate: Pair(candidate.model, fails, noted, batch),  # type: ignore[union-attr,arg-type,return-value]
        load=lambda pair: pair.open(),
        on_step=told.append,
    )
    return ladder, told


def served(ladder: FallbackChain, names: str) -> list[str]:
    requests = [Request(id=name, samples=np.zeros(1, np.float32), question="?") for name in names]
    answered: Any = ladder.stream(ArrivalQueue(requests))
    return [one.text for one in answered]


def steps(told: list[FallbackEvent]) -> list[tuple[str, str | None, str]]:
    return [(step.left, step.taken, step.when) for step in told]


def test_steps_down_while_loading_and_while_serving_and_loses_nothing() -> None:
    log: list[str] = []
    ladder, told = climb({"large-v3": "load", "medium": "b"}, "large-v3", "medium", "base", log=log)
    ladder.open()
    assert served(ladder, "abc") == ["a by medium", "b by base", "c by base"]
    assert steps(told) == [("large-v3", "medium", "load"), ("medium", "base", "b")]
    assert told == ladder.steps
    assert told[0].failure.requested_bytes == 2 * 2**30
    assert log == ["open large-v3", "close large-v3", "open medium", "close medium", "open base"]


def test_a_batch_that_failed_is_served_again_as_a_whole() -> None:
    ladder, told = climb({"medium": "d", "small": "load"}, "medium", "small", "base", batch=2)
    ladder.open()
    assert served(ladder, "abcde") == [
        *("a by medium", "b by medium"),
        *("c by base", "d by base", "e by base"),
    ]
    assert steps(told) == [("medium", "small", "c"), ("small", "base", "c")]


def test_nothing_of_the_failed_work_is_left_when_the_smaller_one_is_loaded() -> None:
    log: list[str] = []
    ladder, _ = climb({"medium": "load", "small": "b"}, "medium", "small", "base", log=log)
    ladder.open()
    served(ladder, "ab")
    assert [entry for entry in log if "open" in entry] == ["open medium", "open small", "open base"]


def test_a_failure_is_told_while_the_failed_work_still_holds_its_memory() -> None:
    ladder, _ = climb({"medium": "load", "small": "b"}, "medium", "small", "base")
    held: list[int] = []
    ladder.on_failure = lambda: held.append(len(Pair.alive))
    ladder.open()
    served(ladder, "ab")
    assert held == [1, 1]


def test_says_so_when_not_even_the_smallest_fits() -> None:
    ladder, told = climb({"small": "load", "base": "load"}, "small", "base")
    with pytest.raises(MemoryError, match="not even base fits beside Voxtral: CUDA out of memory"):
        ladder.open()
    assert steps(told) == [("small", "base", "load"), ("base", None, "load")]


def test_other_faults_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(pair: Pair) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Pair, "open", broken)
    ladder, told = climb({}, "base", "tiny")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        ladder.open()
    assert told == []
