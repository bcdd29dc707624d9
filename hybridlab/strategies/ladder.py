"""The fallback ladder: out of memory steps down to the next smaller Whisper, no request is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hybridlab.devices.oom import OutOfMemory, out_of_memory
from hybridlab.models.base import TenantSpec
from hybridlab.strategies.base import Strategy
from hybridlab.strategies.requests import Request, Served

#: None stands for a strategy without a Whisper.
Rung = TenantSpec | None
#: How a strategy that is open serves these requests; each is answered in its turn.
Serve = Callable[[Strategy, Sequence[Request]], Iterator[Served]]


@dataclass(frozen=True)
class Step:
    """A step down: from which Whisper, to which (None: there was no smaller one), and why."""

    left: str
    taken: str | None
    when: str  # 'load' before the first request, then the id of the first without an answer
    failure: OutOfMemory


class Ladder:
    """Serves with the largest Whisper that memory allows; `rungs` go from large to small. With a
    single rung there is nowhere to step, and a failure passes through as it is.

    make: a strategy over this rung, nothing loaded yet. load: brings it up, with all that has to
    fit before the first request. on_failure: called at once, while the failed work still holds its
    memory. on_step: told of a step before the smaller Whisper is loaded; what else the strategy
    left had taken goes back there.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        *,
        make: Callable[[Rung], Strategy],
        load: Callable[[Strategy], None],
        on_step: Callable[[Step], None],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.rungs = list(rungs)
        self.make = make
        self.load = load
        self.on_step = on_step
        self.on_failure = on_failure
        self.alone = len(self.rungs) == 1
        self.steps: list[Step] = []
        self._strategy: Strategy | None = None
        self._ready = False

    @property
    def strategy(self) -> Strategy:
        """The strategy that is open."""
        assert self._strategy is not None, "open the ladder first"
        return self._strategy

    def open(self, when: str = "load") -> None:
        """Load the first rung that fits. `MemoryError` when none does."""
        while not self._ready:
            failure = None
            try:
                self._strategy = self.make(self.rungs[0])
                self.load(self._strategy)
                self._ready = True
            except Exception as error:  # libraries wrap an allocation failure in whatever they like
                failure = self._lack(error)
            # outside the handler: its traceback would keep the failed work's tensors alive
            if failure is not None:
                self._step_down(when, failure)

    def close(self) -> None:
        if self._strategy is not None:
            self._strategy.close()
        self._strategy, self._ready = None, False

    def serve(self, requests: Sequence[Request], serve: Serve) -> Iterator[Served]:
        """Serve them all, on smaller and smaller rungs if need be: what was answered stays so, and
        the next rung gets exactly those that were not, in their order."""
        left = list(requests)
        when = "load"
        while True:
            self.open(when)
            failure = None
            try:
                for served in serve(self.strategy, tuple(left)):
                    left = [request for request in left if request is not served.request]
                    yield served
                return
            except Exception as error:  # libraries wrap an allocation failure in whatever they like
                failure = self._lack(error)
            when = left[0].id if left else requests[-1].id
            self._step_down(when, failure)

    def _lack(self, error: Exception) -> OutOfMemory:
        """The allocation failure behind this error; any other fault is raised again."""
        failure = out_of_memory(error)
        if failure is None or self.alone:
            raise error
        self.on_failure()
        return failure

    def _step_down(self, when: str, failure: OutOfMemory) -> None:
        self.close()
        names = [rung.model for rung in self.rungs[:2] if rung is not None]
        smaller = names[1] if len(names) > 1 else None
        step = Step(names[0], smaller, when, failure)
        self.steps.append(step)
        self.on_step(step)
        if smaller is None:
            raise MemoryError(f"not even {step.left} fits beside Voxtral: {failure.message}")
        self.rungs.pop(0)
