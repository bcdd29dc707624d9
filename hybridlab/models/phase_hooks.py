"""Phases of a model call (prepare, encode, prefill, decode), observed with forward hooks.

Stamps are CUDA events on a GPU, so that observing never waits for the device.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from torch import nn

from hybridlab.models.base import Model, PhaseSpan


class PhaseProbe:
    """Watches an encoder and an autoregressive decoder of one model.

    The first decoder pass after an encoder pass is the prefill, the others are the decode.
    """

    def __init__(
        self,
        model: Model,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module | None = None,
    ) -> None:
        self.model = model
        self._marks: list[tuple[str, Any]] = []  # (phase, stamp), a start and an end in turn
        self._watching = False
        self._phase = "prepare"
        self._fresh = True  # no decoder pass since the last encoder pass
        encoder.register_forward_pre_hook(self._starts(lambda: "encode"))
        decoder.register_forward_pre_hook(
            self._starts(lambda: "prefill" if self._fresh else "decode")
        )
        for module in (encoder, decoder):
            module.register_forward_hook(self._ends)
        if head is not None:  # a phase of memory alone: its time belongs to the decode
            head.register_forward_pre_hook(lambda *_: self.model.tell_phase("head"))
            head.register_forward_hook(lambda *_: self.model.tell_phase(""))

    def _starts(self, phase: Callable[[], str]) -> Callable[..., None]:
        def start(*_: Any) -> None:
            if self._watching:
                self._phase = phase()
                self._mark(self._phase, entering=True)

        return start

    def _ends(self, *_: Any) -> None:
        if self._watching:
            self._fresh = self._phase == "encode"
            self._mark(self._phase, entering=False)

    def _mark(self, phase: str, *, entering: bool) -> None:
        self._marks.append((phase, self.model.device.stamp()))
        self.model.tell_phase(phase if entering else "")

    @contextmanager
    def call(self) -> Iterator[None]:
        """Append the spans of the call inside to the model's."""
        began = self.model.device.stamp()
        self._marks, self._fresh, self._watching = [], True, True
        self.model.tell_phase("prepare")
        try:
            with self.model.device.compute_slot():
                yield
        finally:
            self._watching = False
        self.model.tell_phase("")  # not after a fault: the phase is then where it happened
        self.model.spans.extend(self._spans(began))
        self._marks = []

    def _spans(self, began: Any) -> Iterator[PhaseSpan]:
        """`prepare` up to the first pass, then the passes; neighbours of one phase are one span."""
        times = [(phase, self.model.device.seconds(stamp)) for phase, stamp in self._marks]
        start = self.model.device.seconds(began)
        yield PhaseSpan(self.model.name, "prepare", start, times[0][1] if times else start)
        for phase, own in groupby(times, key=operator.itemgetter(0)):
            (_, entered), *_, (_, left) = own
            yield PhaseSpan(self.model.name, phase, entered, left)
