"""A request to stop, by the kernel's interrupt: every front end has one, and the kernel gets it
while a cell is at work."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: A second interrupt within so many seconds of the first stops all further cases, too.
AGAIN_S = 10.0


class Stop:
    """What the reader wants, read between two ticks."""

    def __init__(self) -> None:
        self.case = self.rest = False
        self._interrupted_s = float("-inf")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Around a running case: an interrupt of the kernel is a request, so that nothing is torn
        in the middle."""
        self.case = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: object) -> None:
        now = time.monotonic()
        self.case, self.rest = True, self.rest or now - self._interrupted_s < AGAIN_S
        self._interrupted_s = now
