"""Maintenance between requests: clear the cache every so many, reload above a bound of
fragmentation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext

from hybridlab.errors import UnavailableError
from hybridlab.strategies.base import Measure, Strategy
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest


class Maintenance:
    """What is done after a request, and how often it was; the defaults do nothing.

    clear_cache_every: give freed memory back after so many requests; 0 never.
    restart_fragmentation: unload and load again where fragmentation (1 - active / reserved) is
    higher.
    """

    def __init__(self, *, clear_cache_every: int = 0, restart_fragmentation: float = 1.0) -> None:
        self.clear_cache_every = clear_cache_every
        self.restart_fragmentation = restart_fragmentation
        self.served = self.cache_clears = self.reloads = 0
        self.seconds = 0.0

    @property
    def active(self) -> bool:
        """Whether anything can ever be due."""
        return bool(self.clear_cache_every) or self.restart_fragmentation < 1

    def check(self, strategy: Strategy) -> None:
        """`UnavailableError` where this strategy has no moment between two requests."""
        if self.restart_fragmentation < 1 and strategy.facts.streams:
            raise UnavailableError(
                f"{strategy.name}/{strategy.variant} has requests on the way all the time and "
                "cannot restart between two; set restart_fragmentation to 1.0"
            )

    def after_request(self, strategy: Strategy) -> float:
        """Do what is due; the seconds that it took, 0 where nothing was."""
        began = time.perf_counter()
        self.served += 1
        if self._is_fragmented(strategy):
            strategy.close()
            strategy.device.release()
            strategy.open()
            self.reloads += 1
        elif self.clear_cache_every and self.served % self.clear_cache_every == 0:
            strategy.device.release()
            self.cache_clears += 1
        else:
            return 0.0
        taken = time.perf_counter() - began
        self.seconds += taken
        return taken

    def _is_fragmented(self, strategy: Strategy) -> bool:
        if self.restart_fragmentation >= 1:
            return False
        share = strategy.device.memory_stats().fragmentation
        return share is not None and share > self.restart_fragmentation


class WithMaintenance:
    """A strategy whose memory is looked after between requests."""

    def __init__(self, strategy: Strategy, maintenance: Maintenance) -> None:
        maintenance.check(strategy)
        self.current = strategy
        self.maintenance = maintenance

    def close(self) -> None:
        self.current.close()

    def stream(
        self, inbox: ArrivalQueue, *, measure: Measure = nullcontext
    ) -> Iterator[CompletedRequest]:
        for completed in self.current.stream(inbox, measure=measure):
            yield completed
            self.maintenance.after_request(self.current)
