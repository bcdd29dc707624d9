"""Random numbers on a simulated card, drawn on the CPU.

A generator of the card is a seed and an offset that each use moves on (Philox). To each such point
belongs a state of a generator of the CPU, so that a seed gives the same numbers every time, and the
numbers that the CPU's own generator gives after the same seed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_KEPT_STATES = 64  # of 5 KiB: enough for every generator in use and for a few points to return to
_PHILOX_STEP = 4  # an offset is a multiple of it
_SEED_BITS = (1 << 63) - 1

_lock = threading.RLock()
_states: OrderedDict[tuple[int, int], torch.Tensor] = OrderedDict()


def _point(generator: torch.Generator) -> tuple[int, int]:
    return generator.initial_seed(), generator.get_offset()


def _state_at(point: tuple[int, int]) -> torch.Tensor:
    known = _states.get(point)
    if known is not None:
        return known
    seed, offset = point
    own = torch.Generator("cpu").manual_seed((seed + offset * 0x9E3779B97F4A7C15) & _SEED_BITS)
    return own.get_state()


@contextmanager
def drawing(generator: torch.Generator) -> Iterator[torch.Generator]:
    """The generator of the CPU that stands for the card's one.

    Enter before the operation of the card runs and draw after it: what was drawn belongs to the
    point that the card's generator was moved to.
    """
    with _lock:
        host = torch.Generator("cpu").set_state(_state_at(_point(generator)))
        before = _point(generator)
        yield host
        if _point(generator) == before:  # the card's own kernel was not asked
            generator.set_offset(before[1] + _PHILOX_STEP)
        moved = _point(generator)
        _states[moved] = host.get_state()
        _states.move_to_end(moved)
        while len(_states) > _KEPT_STATES:
            _states.popitem(last=False)


@contextmanager
def as_default(generator: torch.Generator) -> Iterator[None]:
    """Let operations that take no generator draw from this one, and not from the CPU's."""
    default = torch.default_generator
    before = default.get_state()
    default.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(default.get_state())
        default.set_state(before)
