"""Housekeeping between requests: clean every so many, restart above a bound of fragmentation."""

from __future__ import annotations

import time

from hybridlab.errors import UnavailableError
from hybridlab.strategies.base import Strategy


class Housekeeper:
    """Looks after the memory of a strategy that is open; the defaults do nothing.

    clean_every: give freed memory back after so many requests; 0 never.
    restart_above: unload and load again where fragmentation (1 - active / reserved) is higher.
    """

    def __init__(
        self, strategy: Strategy, *, clean_every: int = 0, restart_above: float = 1.0
    ) -> None:
        if restart_above < 1 and strategy.streams:
            raise UnavailableError(
                f"{strategy.name} / {strategy.variant} has requests on the way all the time and "
                "cannot restart between two; set restart_above to 1.0"
            )
        self.strategy = strategy
        self.clean_every = clean_every
        self.restart_above = restart_above
        self.served = self.cleanings = self.restarts = 0
        self.seconds = 0.0

    def after_request(self) -> float:
        """Do what is due; the seconds that it took, 0 where nothing was."""
        began = time.perf_counter()
        self.served += 1
        if self._is_fragmented():
            self.strategy.close()
            self.strategy.device.release()
            self.strategy.open()
            self.restarts += 1
        elif self.clean_every and self.served % self.clean_every == 0:
            self.strategy.device.release()
            self.cleanings += 1
        else:
            return 0.0
        taken = time.perf_counter() - began
        self.seconds += taken
        return taken

    def _is_fragmented(self) -> bool:
        if self.restart_above >= 1:
            return False
        share = self.strategy.device.wear().fragmentation
        return share is not None and share > self.restart_above
