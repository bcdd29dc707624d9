"""Where a download stands, in words and for listeners."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hybridlab.units import format_decimal_bytes, format_seconds

#: Between two lines of a download where lines cannot be written anew, and where it waits.
LINE_EVERY_S, NOTE_EVERY_S = 30.0, 5.0
#: Seconds over which the rate is taken, and before which there is none to tell.
RATE_WINDOW_S, RATE_FROM_S = 20.0, 1.0


@dataclass(frozen=True)
class FetchProgress:
    """Where a download stands, of all that is fetched together."""

    source: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: float
    #: What keeps it waiting, in its library's words; '' for nothing.
    note: str = ""

    @property
    def done(self) -> bool:
        return self.done_bytes >= self.total_bytes

    @property
    def left_s(self) -> float | None:
        """None as long as nothing came."""
        left = self.total_bytes - self.done_bytes
        return left / self.bytes_per_s if self.bytes_per_s else None

    def words(self) -> str:
        """'fetching R: 3.20 GB of 9.35 GB, 40 MB/s, 2 min 34 s left'; 'fetched 9.35 GB'."""
        done, total = map(format_decimal_bytes, (self.done_bytes, self.total_bytes))
        if self.done:
            return f"fetched {total} of weights"
        rate = format_decimal_bytes(self.bytes_per_s)
        left = "" if self.left_s is None else f", {rate}/s, {format_seconds(self.left_s)} left"
        note = f"; {self.note}" if self.note else ""
        return f"fetching {self.source}: {done} of {total}{left}{note}"


Listener = Callable[[FetchProgress], None]


def line_printer(say: Callable[[str], None]) -> Listener:
    """Says a line at the first call, then every so often, sooner where something keeps it waiting,
    and at the end."""
    last: FetchProgress | None = None
    said_s = 0.0

    def listen(state: FetchProgress) -> None:
        nonlocal last, said_s
        since_s = time.monotonic() - said_s
        waits = state.note != "" and since_s >= NOTE_EVERY_S
        ends = last is not None and state.done and not last.done
        if last is None or ends or waits or since_s >= LINE_EVERY_S:
            last, said_s = state, time.monotonic()
            say(state.words())

    return listen


class RateMeter:
    """Bytes per second of late."""

    def __init__(self) -> None:
        self._seen = [(time.monotonic(), 0)]

    def rate(self, done_bytes: int) -> float:
        """By the readings so far, to which this one is added; 0 before there is one to tell."""
        now = time.monotonic()
        self._seen.append((now, done_bytes))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_WINDOW_S:
            del self._seen[0]
        began, before = self._seen[0]
        return max(0.0, (done_bytes - before) / (now - began)) if now > began + RATE_FROM_S else 0.0
