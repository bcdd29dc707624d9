"""A request to stop: two buttons, and the kernel's interrupt, which is always there.

A click is a message to the kernel, which is busy with the cell. A kernel with subshells (ipykernel
7) takes it on a thread of its own if the front end sends it there, as JupyterLab does from 4.4 on;
all others (Colab) take it when the cell has ended, so that they get no buttons.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: A second interrupt within so many seconds of the first stops all further cases, too.
AGAIN_S = 10.0


class Stop:
    """What the reader wants; set from any thread, read between two ticks."""

    def __init__(self) -> None:
        self.case = threading.Event()
        self.rest = threading.Event()
        self._listening = False
        self._interrupted_s = float("-inf")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Around a running case: an interrupt of the kernel is a request like a click, so that
        nothing is torn in the middle."""
        self.case.clear()
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, self._interrupt) if main else None
        self._listening = True
        try:
            yield
        finally:
            self._listening = False
            if main:
                signal.signal(signal.SIGINT, before)

    def press(self, *, rest: bool = False) -> None:
        """Stop the running case, and the `rest`. A click that arrives when its case has ended asks
        for nothing."""
        if not self._listening:
            return
        if rest:
            self.rest.set()
        self.case.set()

    def _interrupt(self, *_: object) -> None:
        now = time.monotonic()
        self.press(rest=now - self._interrupted_s < AGAIN_S)
        self._interrupted_s = now


def takes_clicks(kernel: Any) -> bool:
    """Whether this kernel can take a click while a cell is at work."""
    told = getattr(kernel, "kernel_info", {})  # kernels that are not ipykernel may have none
    return "kernel subshells" in told.get("supported_features", ())


def let_clicks_through(button: Any) -> None:
    """Let the front end choose the subshell for the clicks of this button.

    ipykernel 7.4 sends messages for a widget to the sender of its last state: the cell, which is
    busy. Without that note, which other versions do not keep, the front end's choice holds.
    """
    vars(button.comm).pop("_reply_subshell_id", None)
