"""The fallback ladder: out of memory steps down to the next smaller Whisper, no request is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hybridlab.errors import UnavailableError
from hybridlab.oom import OutOfMemory, out_of_memory
from hybridlab.strategies.base import Strategy
from hybridlab.strategies.requests import Request, Served
from hybridlab.tenants.base import TenantSpec


@dataclass(frozen=True)
class Step:
    """A step down: from which Whisper, to which (None: there was no smaller one), and why."""

    left: str
    taken: str | None
    when: str  # 'load', or the id of the request
    failure: OutOfMemory


class Ladder:
    """Serves with the largest Whisper that memory allows; `rungs` go from large to small."""

    def __init__(self, make: Callable[[TenantSpec], Strategy], rungs: Sequence[TenantSpec]) -> None:
        self.make = make
        self.rungs = list(rungs)
        self.steps: list[Step] = []
        self.strategy: Strategy | None = None

    @property
    def rung(self) -> TenantSpec:
        """The Whisper that serves now."""
        return self.rungs[0]

    def open(self) -> None:
        """Load the first rung that fits. `UnavailableError` when none does."""
        while self.strategy is None:
            self._load("load")

    def close(self) -> None:
        if self.strategy is not None:
            self.strategy.close()
            self.strategy = None

    def serve(self, request: Request) -> Served:
        """Serve, on smaller and smaller rungs if need be."""
        while True:
            while self.strategy is None:
                self._load(request.id)
            failure = None
            try:
                return self.strategy.serve(request)
            except Exception as error:  # libraries wrap an allocation failure in whatever they like
                failure = out_of_memory(error)
                if failure is None:
                    raise
            # outside the handler: its traceback would keep the failed request's tensors alive
            self._step_down(request.id, failure)

    def _load(self, when: str) -> None:
        strategy = self.make(self.rung)
        failure = None
        try:
            strategy.open()
            self.strategy = strategy
        except Exception as error:  # libraries wrap an allocation failure in whatever they like
            failure = out_of_memory(error)
            if failure is None:
                raise
        if failure is not None:
            self.strategy = strategy
            self._step_down(when, failure)

    def _step_down(self, when: str, failure: OutOfMemory) -> None:
        self.close()
        smaller = self.rungs[1].model if len(self.rungs) > 1 else None
        self.steps.append(Step(self.rung.model, smaller, when, failure))
        if smaller is None:
            raise UnavailableError(
                f"not even {self.rung.model} fits beside Voxtral: {failure.message}"
            )
        self.rungs.pop(0)
