"""What the pocket Voxtral is trained on: clips as its projector sees them, with labels per token.

The encoder is frozen, so every clip passes it once. Windows of different clips, joined, are new
clips that cost nothing; with most of its silence taken out a clip trains in a quarter of the time.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from hybridlab import catalog
from hybridlab.audio import Samples
from tools.pocket.speech import (
    DIGITS,
    MOST_WORDS,
    Word,
    long_utterance,
    utterance,
)
from tools.pocket.train_whisper import VARIATION, encode, frame_labels, log_mel

logger = logging.getLogger(__name__)

#: Shares of encoded clips with one, two and three windows of 30 s.
WINDOW_SHARES = {1: 0.6, 2: 0.25, 3: 0.15}
WINDOW_SAMPLES = int(catalog.WINDOW_S * catalog.SAMPLE_RATE_HZ)
WINDOW_TOKENS = catalog.VOXTRAL_TOKENS_PER_WINDOW
FRAMES_PER_TOKEN = catalog.ENCODER_POSITIONS // WINDOW_TOKENS
#: A joined clip has at least so many words: fewer are what single windows are for.
LEAST_JOINED_WORDS = 4


@dataclass(frozen=True)
class Clip:
    """`tokens` go into the projector: (n, 4 d) in bfloat16, n = 375 a window unless thinned.
    `digits` (digit + 1) and `numbers` (of the word in the clip) label them; 0 is silence."""

    words: tuple[str, ...]
    tokens: Tensor
    digits: Tensor
    numbers: Tensor

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        """All that is to be known of every token: its digit and number, whether a word begins, and
        of the words so far how many they are, the largest and the smallest (digit + 1)."""
        before = torch.cat([torch.zeros_like(self.numbers[:1]), self.numbers[:-1]])
        count = torch.cummax(self.numbers, 0).values
        digits = torch.tensor([DIGITS.index(word) + 1 for word in self.words])
        largest, smallest = torch.cummax(digits, 0).values, torch.cummin(digits, 0).values
        none = torch.zeros(1, dtype=torch.long)
        return {
            "digit": self.digits,
            "number": self.numbers,
            "onset": ((self.numbers > 0) & (self.numbers != before)).long(),
            "count": count,
            "largest": torch.cat([none, largest])[count],
            "smallest": torch.cat([none, smallest])[count],
        }


def window_mels(samples: Samples) -> Tensor:
    """(windows, 128, 3000) exactly as Voxtral's processor computes them: the whole audio padded
    with silence to a multiple of 30 s, its features normalised together, then cut."""
    windows = max(1, math.ceil(samples.size / WINDOW_SAMPLES))
    mel = log_mel([samples], windows * catalog.MEL_FRAMES_PER_WINDOW, [False])[0]
    return mel.reshape(mel.shape[0], windows, -1).transpose(0, 1)


@torch.inference_mode()
def encode_clips(
    encoder: nn.Module, bank: dict[str, list[Word]], *, count: int, seed: int
) -> dict[int, list[Clip]]:
    """Random clips of one to three windows that have passed the encoder, by number of windows."""
    rng = np.random.default_rng(seed)
    clips: dict[int, list[Clip]] = {windows: [] for windows in WINDOW_SHARES}
    for number in range(count):
        windows = int(rng.choice(list(WINDOW_SHARES), p=list(WINDOW_SHARES.values())))
        longest_s = catalog.WINDOW_S * windows - 0.1
        shortest_s = longest_s - catalog.WINDOW_S + 1.0
        if windows == 1:
            said = utterance(bank, rng, longest_s=longest_s, variation=VARIATION)
        else:
            said = long_utterance(
                bank, rng, shortest_s=shortest_s, longest_s=longest_s, variation=VARIATION
            )
        encoded = encode(encoder, window_mels(said.samples))
        digits, numbers = (
            labels[0].reshape(-1, FRAMES_PER_TOKEN).amax(1)
            for labels in frame_labels([said], windows * catalog.ENCODER_POSITIONS)
        )
        tokens = encoded.reshape(digits.shape[0], -1).bfloat16()
        clips[windows].append(Clip(said.words, tokens.clone(), digits, numbers))
        if (number + 1) % 500 == 0:
            logger.info("encoded %d of %d clips", number + 1, count)
    return clips


def windows_of(clip: Clip) -> list[Clip]:
    """The clip's windows as clips of their own, those without a word that a border cuts in two."""
    found = []
    for start in range(0, len(clip.numbers), WINDOW_TOKENS):
        own = slice(start, start + WINDOW_TOKENS)
        numbers = clip.numbers[own]
        inside = sorted(set(numbers[numbers > 0].tolist()))
        outside = torch.cat([clip.numbers[:start], clip.numbers[start + WINDOW_TOKENS :]])
        if any((outside == number).any() for number in inside):
            continue
        first = inside[0] if inside else 1
        words = tuple(clip.words[number - 1] for number in inside)
        renumbered = torch.where(numbers > 0, numbers - first + 1, 0)
        found.append(Clip(words, clip.tokens[own], clip.digits[own], renumbered))
    return found


def join(windows: list[Clip]) -> Clip:
    """One clip after the other, their words numbered through."""
    numbers, words = [], 0
    for window in windows:
        numbers.append(torch.where(window.numbers > 0, window.numbers + words, 0))
        words += len(window.words)
    return Clip(
        tuple(word for window in windows for word in window.words),
        torch.cat([window.tokens for window in windows]),
        torch.cat([window.digits for window in windows]),
        torch.cat(numbers),
    )


def random_join(pool: list[Clip], count: int, rng: np.random.Generator) -> Clip:
    """So many windows of the pool whose words can still be counted."""
    while True:
        chosen = [pool[i] for i in rng.integers(0, len(pool), count)]
        if LEAST_JOINED_WORDS <= sum(len(window.words) for window in chosen) <= MOST_WORDS:
            return join(chosen)


def thinned(clips: list[Clip], rng: np.random.Generator, *, most_silence: int) -> list[Clip]:
    """The same clips with little silence: every token of a word and the ones beside it stay, and
    as many random others as make all of them equally long."""
    kept = [_spoken(clip) for clip in clips]
    length = max(int(own.sum()) for own in kept) + int(rng.integers(0, most_silence + 1))
    length = min(length, *(len(own) for own in kept))
    found = []
    for clip, own in zip(clips, kept, strict=True):
        silent = torch.nonzero(~own)[:, 0]
        extra = silent[torch.from_numpy(rng.permutation(len(silent))[: length - int(own.sum())])]
        places = torch.sort(torch.cat([torch.nonzero(own)[:, 0], extra])).values
        found.append(
            Clip(clip.words, clip.tokens[places], clip.digits[places], clip.numbers[places])
        )
    return found


def _spoken(clip: Clip) -> Tensor:
    """Tokens of words and their neighbours."""
    spoken = clip.numbers > 0
    near = spoken.clone()
    near[1:] |= spoken[:-1]
    near[:-1] |= spoken[1:]
    return near
