"""Blocks of any number of channels into one, as they are decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

#: Frames mixed at a time, each of `channels` float32.
BLOCK_FRAMES = 1 << 18
#: Below this share of the loudest channel the mean of all is no sum of theirs: they cancel. One
#: voice in one of eight channels leaves an eighth, noises of their own more.
CANCELLED = 0.1
CANCELLED_NOTE = "the channels cancel each other out; the louder one was taken"


@dataclass(frozen=True)
class Extent:
    """What a file holds: as its header says, or as far as it is decoded."""

    channels: int
    rate_hz: int
    n_frames: int

    @property
    def seconds(self) -> float:
        return self.n_frames / self.rate_hz


#: Looks at a file before and while it is decoded, and may raise.
Check = Callable[[Extent], None]


@dataclass(frozen=True)
class Mono:
    """All frames of a file in one channel at the file's own rate, shape (n,)."""

    samples: Samples
    rate_hz: int
    #: What the reader has to know of it.
    notes: tuple[str, ...] = ()
    #: Of the file, behind what was taken for the end of its stream.
    unread_bytes: int = 0

    @property
    def seconds(self) -> float:
        return self.samples.size / self.rate_hz


class Mixer:
    """Mixes block by block: many channels take no more memory than one."""

    def __init__(self, check: Check) -> None:
        self.n_frames = 0
        self._check = check
        self._waiting: list[Samples] = []
        self._n_waiting = 0
        self._mixed: list[Samples] = []
        self._cancelled = False

    def add(self, block: Samples, rate_hz: int) -> None:
        """The next frames, shape (n, channels); the number of channels may change on the way."""
        if self._waiting and self._waiting[0].shape[1] != block.shape[1]:
            self._mix()
        self.n_frames += len(block)
        self._check(Extent(block.shape[1], rate_hz, self.n_frames))
        self._waiting.append(block)
        self._n_waiting += len(block)
        if self._n_waiting >= BLOCK_FRAMES:
            self._mix()

    def mono(self, rate_hz: int, *notes: str) -> Mono:
        """All that was added."""
        if self._waiting:
            self._mix()
        samples = np.concatenate(self._mixed) if self._mixed else np.zeros(0, np.float32)
        return Mono(samples, rate_hz, (*notes, *([CANCELLED_NOTE] if self._cancelled else [])))

    def _mix(self) -> None:
        whole = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting, self._n_waiting = [], 0
        samples, cancelled = _mixed(whole)
        self._mixed.append(samples)
        self._cancelled |= cancelled


def _mixed(block: Samples) -> tuple[Samples, bool]:
    """The mean of the channels of (n, channels), or the loudest where the mean cancels them out, as
    of a microphone with balanced wires that was recorded in stereo; and whether it did."""
    if block.shape[1] == 1:
        return block[:, 0], False
    channels = np.ascontiguousarray(block.T)  # numpy sums over a short last axis ten times as long
    with np.errstate(invalid="ignore"):  # values that are not numbers are refused later
        mean: Samples = channels.mean(axis=0)
        loudness = channels.std(axis=1, dtype=np.float64)  # about the mean: a constant is no sound
        if mean.std(dtype=np.float64) < CANCELLED * loudness.max():
            # the first of equally loud ones, so that no border of blocks turns the phase around
            loudest = int(np.argmax(loudness >= 0.99 * loudness.max()))
            return channels[loudest].copy(), True
    return mean, False
