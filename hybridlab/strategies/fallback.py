"""Out of memory steps down to the next smaller recogniser, and no request is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

from hybridlab.devices.out_of_memory import OutOfMemory, out_of_memory
from hybridlab.models.base import ModelSpec
from hybridlab.strategies.base import Measure, Strategy
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest


class Serves(Protocol):
    """A strategy, or a wrapper around one."""

    @property
    def current(self) -> Strategy:
        """The strategy that serves now."""

    def close(self) -> None: ...

    def stream(
        self, inbox: ArrivalQueue, *, measure: Measure = nullcontext
    ) -> Iterator[CompletedRequest]: ...


@dataclass(frozen=True)
class FallbackEvent:
    """A step down: from which Whisper, to which (None: there was no smaller one), and why."""

    left: str
    taken: str | None
    when: str  # 'load' before the first request, then the id of the first without an answer
    failure: OutOfMemory


class FallbackChain:
    """Serves with the largest recogniser that memory allows; `candidates` go from large to small.

    make: what serves with this candidate, nothing loaded yet. load: brings it up, with all that
    has to fit before the first request. on_failure: called at once, while the failed work still
    holds its memory. on_step: called with a step before the smaller one is loaded; what else the
    strategy left had taken goes back there.
    """

    def __init__(
        self,
        candidates: Sequence[ModelSpec],
        *,
        make: Callable[[ModelSpec], Serves],
        load: Callable[[Strategy], None],
        on_step: Callable[[FallbackEvent], None],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.candidates = list(candidates)
        self.make = make
        self.load = load
        self.on_step = on_step
        self.on_failure = on_failure
        self.steps: list[FallbackEvent] = []
        self._serves: Serves | None = None
        self._ready = False

    @property
    def current(self) -> Strategy:
        """The strategy that is open."""
        assert self._serves is not None, "open the chain first"
        return self._serves.current

    def open(self, when: str = "load") -> None:
        """Load the first candidate that fits. `MemoryError` when none does."""
        while not self._ready:
            failure = None
            try:
                self._serves = self.make(self.candidates[0])
                self.load(self.current)
                self._ready = True
            except Exception as error:  # libraries wrap an allocation failure in whatever they like
                failure = self._lack(error)
            # outside the handler: its traceback would keep the failed work's tensors alive
            if failure is not None:
                self._step_down(when, failure)

    def close(self) -> None:
        if self._serves is not None:
            self._serves.close()
        self._serves, self._ready = None, False

    def stream(
        self, inbox: ArrivalQueue, *, measure: Measure = nullcontext
    ) -> Iterator[CompletedRequest]:
        """Serve them all, on smaller and smaller candidates if need be: what was answered stays
        so, and the next candidate gets exactly those that were not, in their order."""
        left = inbox.waiting
        last, when = left[-1].id, "load"
        while True:
            self.open(when)
            assert self._serves is not None
            failure = None
            try:
                for completed in self._serves.stream(ArrivalQueue(left), measure=measure):
                    left = [request for request in left if request is not completed.request]
                    yield completed
                return
            except Exception as error:  # libraries wrap an allocation failure in whatever they like
                failure = self._lack(error)
            when = left[0].id if left else last
            self._step_down(when, failure)

    def _lack(self, error: Exception) -> OutOfMemory:
        """The allocation failure behind this error; any other fault is raised again."""
        failure = out_of_memory(error)
        if failure is None:
            raise error
        self.on_failure()
        return failure

    def _step_down(self, when: str, failure: OutOfMemory) -> None:
        self.close()
        left, *smaller = self.candidates
        taken = smaller[0].model if smaller else None
        step = FallbackEvent(left.model, taken, when, failure)
        self.steps.append(step)
        self.on_step(step)
        if taken is None:
            raise MemoryError(f"not even {step.left} fits beside Voxtral: {failure.message}")
        self.candidates = smaller
