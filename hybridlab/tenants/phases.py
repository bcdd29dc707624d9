"""Phases of a model call (prepare, encode, prefill, decode), observed with forward hooks.

Stamps are CUDA events on a GPU, so that observing never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from hybridlab.device import Device
from hybridlab.tenants.base import Span


class PhaseProbe:
    """Watches an encoder and an autoregressive decoder of one tenant."""

    def __init__(
        self, device: Device, tenant: str, *, encoder: nn.Module, decoder: nn.Module
    ) -> None:
        self.device = device
        self.tenant = tenant
        self._marks: list[tuple[str, str, Any]] = []  # (module, 'start'/'end', stamp)
        self._watching = False
        for name, module in (("encode", encoder), ("decode", decoder)):
            module.register_forward_pre_hook(self._hook(name, "start"))
            module.register_forward_hook(self._hook(name, "end"))

    def _hook(self, name: str, edge: str) -> Callable[..., None]:
        def mark(*_: Any) -> None:
            if self._watching:
                self._marks.append((name, edge, self.device.stamp()))

        return mark

    @contextmanager
    def call(self, into: list[Span]) -> Iterator[None]:
        """Append the spans of the call inside to `into`."""
        self._marks = [("call", "start", self.device.stamp())]
        self._watching = True
        try:
            yield
        finally:
            self._watching = False
        into.extend(self._spans())
        self._marks = []

    def _spans(self) -> Iterator[Span]:
        """The first decoder pass after an encoder pass is the prefill; the rest are one decode."""
        times = [(name, edge, self.device.seconds(stamp)) for name, edge, stamp in self._marks]
        yield self._span("prepare", times[0][2], times[1][2] if len(times) > 1 else times[0][2])
        decode: tuple[float, float] | None = None
        fresh = True  # no decoder pass since the last encoder pass
        for (name, _, start), (_, _, end) in zip(times[1::2], times[2::2], strict=True):
            if name == "encode":
                if decode is not None:
                    yield self._span("decode", *decode)
                    decode = None
                yield self._span("encode", start, end)
                fresh = True
            elif fresh:
                yield self._span("prefill", start, end)
                fresh = False
            else:
                decode = (decode[0] if decode else start, end)
        if decode is not None:
            yield self._span("decode", *decode)

    def _span(self, phase: str, start: float, end: float) -> Span:
        return Span(self.tenant, phase, start, end)
