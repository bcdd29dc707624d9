"""What one pass of Whisper's decoder said, and which pass over a window is kept: the rules and
thresholds of decoding again, the same for every backend."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from hybridlab import catalog

if TYPE_CHECKING:
    import torch

#: As `whisper.transcribe` has them by default.
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
MOST_COMPRESSION_RATIO = 2.4
LEAST_AVG_LOGPROB = -1.0
MOST_NO_SPEECH_PROB = 0.6
#: A text below this is of speech that the model knows poorly, where the likeliest token each time
#: leads astray; clear speech has -0.1 to -0.3.
UNSURE_AVG_LOGPROB = -0.3
#: By so much per token a text with beams has to be the more probable one, which is 0.03 to 0.12
#: where it hears more; with less, neither text is the better one.
LEAST_GAIN = 0.02
#: Repeating raises a text's mean probability, which beams look for: theirs is not to compress so
#: many times better than the other, or than most texts do.
MOST_RATIO_RISE, USUAL_RATIO = 1.2, 1.5
#: A timestamp counts so many seconds; their ids, 0 to 30 s, are a vocabulary's last.
TIMESTAMP_S = 0.02
TIMESTAMPS = 1501
#: Of drawn tokens.
SEED = 0


@dataclass(frozen=True)
class Pass:
    """What one pass of the decoder said of a window or of the rest of one."""

    #: Timestamps among them, the end not.
    tokens: tuple[int, ...]
    #: The model came to the end by itself.
    ended: bool
    temperature: float = 0.0
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    beams: int = 1


@dataclass(frozen=True)
class Fallback:
    """Which pass over a window is kept: with beams, then openai-whisper's higher temperatures.
    `text` is what tokens say."""

    text: Callable[[Sequence[int]], str]

    def kept(self, first: Pass, again: Callable[..., Pass]) -> Pass:
        """This pass or a better one. `again` decodes the window with these of its options
        changed: beams, temperature."""
        return self._settled(self._surer(first, again), partial(again, beams=1))

    def _surer(self, first: Pass, again: Callable[..., Pass]) -> Pass:
        """This pass, or with beams the more probable one where the model is unsure of it; a text
        that repeats itself, or does so where the other does not, is the worse one."""
        if first.beams > 1 or not self._unsure(first):
            return first
        other = again(beams=catalog.UNSURE_BEAMS)
        own, others = (compression_ratio(self.text(one.tokens).strip()) for one in (first, other))
        if (others or 0) > MOST_RATIO_RISE * max(own or 0, USUAL_RATIO):
            return first
        gain = (other.avg_logprob or 0.0) - (first.avg_logprob or 0.0)
        if self._repeats(first) == self._repeats(other):
            return other if gain > LEAST_GAIN else first
        return first if self._repeats(other) else other

    def _unsure(self, said: Pass) -> bool:
        if said.avg_logprob is None or no_speech(said):
            return False
        return said.avg_logprob < UNSURE_AVG_LOGPROB or self._repeats(said)

    def _settled(self, first: Pass, again: Callable[..., Pass]) -> Pass:
        """This pass, or one of those at higher temperatures; where none is good enough, the most
        probable of those that do not repeat themselves."""
        tried = [first]
        for temperature in TEMPERATURES[1:]:
            if not self.is_needed(tried[-1]):
                return tried[-1]
            tried.append(again(temperature=temperature))
        if not self.is_needed(tried[-1]):
            return tried[-1]
        plain = [said for said in tried if not self._repeats(said)]
        return max(plain or tried, key=lambda said: said.avg_logprob or 0.0)

    def is_needed(self, said: Pass) -> bool:
        """Whether openai-whisper would decode the window again."""
        if no_speech(said):
            return False
        improbable = said.avg_logprob is not None and said.avg_logprob < LEAST_AVG_LOGPROB
        return improbable or self._repeats(said)

    def _repeats(self, said: Pass) -> bool:
        ratio = compression_ratio(self.text(said.tokens).strip())
        return ratio is not None and ratio > MOST_COMPRESSION_RATIO


def compression_ratio(text: str) -> float | None:
    """How many times as long a text is as zlib makes it; None without one."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded)) if encoded else None


def no_speech(said: Pass) -> bool:
    """Whether a pass is of a stretch in which nobody speaks: improbable as a text as well."""
    if said.no_speech_prob is None or said.no_speech_prob <= MOST_NO_SPEECH_PROB:
        return False
    return said.avg_logprob is None or said.avg_logprob <= LEAST_AVG_LOGPROB


def begins_segment(tokens: Sequence[int], first_timestamp: int, end: int) -> bool:
    """Whether the last of these tokens begins a segment before `end`. Whisper learned to stop there
    where its window cuts a segment; what it hears of it would be lost, or take another pass of the
    encoder."""
    return len(tokens) > 1 and tokens[-2] >= first_timestamp and first_timestamp <= tokens[-1] < end


def stretches(tokens: Sequence[int], first_timestamp: int) -> list[Sequence[int]]:
    """Tokens cut between every two timestamps that follow each other; a last timestamp that has
    nothing behind it is left out."""
    stamps = [token >= first_timestamp for token in tokens]
    cuts = [n for n in range(1, len(tokens)) if stamps[n] and stamps[n - 1]]
    return [
        tokens[a:b] for a, b in pairwise([0, *cuts, len(tokens)]) if not (b - a == 1 and stamps[a])
    ]


@contextmanager
def drawn_alike(device: torch.device, temperature: float) -> Iterator[None]:
    """Tokens that torch draws inside are the same each time."""
    import torch

    if not temperature:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        yield
