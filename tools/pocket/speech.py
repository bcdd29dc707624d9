"""Synthetic speech for the pocket models: spoken English digits in many voices, with questions.

espeak-ng (a Debian package) speaks each word; utterances are words with random gaps, levels and
light noise. Importing this module needs neither torch nor espeak-ng.
"""

from __future__ import annotations

import io
import math
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from hybridlab.audio import Samples
from hybridlab.catalog import SAMPLE_RATE_HZ
from hybridlab.errors import UnavailableError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBERS = (*DIGITS, "ten", "eleven", "twelve")

ACCENTS = (
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4")
#: Voices that training never hears: two whole variants, and one accent of every other one.
HELD_OUT_VARIANTS = ("m3", "f2")


def _is_held_out(accent: int, variant: int) -> bool:
    return VARIANTS[variant] in HELD_OUT_VARIANTS or (accent + variant) % len(ACCENTS) == 0


_ALL_VOICES = [(a, v) for a in range(len(ACCENTS)) for v in range(len(VARIANTS))]
#: Variants that only training hears, in every accent: the more voices, the better a new one goes.
MORE_VARIANTS = (
    "f5",
    "m8",
    "Alicia",
    "Andy",
    "Annie",
    "ed",
    "linda",
    "norbert",
    "steph",
    "victor",
)
TRAINING_VOICES = (
    *(f"{ACCENTS[a]}+{VARIANTS[v]}" for a, v in _ALL_VOICES if not _is_held_out(a, v)),
    *(f"{accent}+{variant}" for accent in ACCENTS for variant in MORE_VARIANTS),
)
HELD_OUT_VOICES = tuple(f"{ACCENTS[a]}+{VARIANTS[v]}" for a, v in _ALL_VOICES if _is_held_out(a, v))

# ------------------------------------------------------------------------------------- questions


def _extreme(pick: Callable[[list[int]], int]) -> Callable[[list[str]], str]:
    return lambda words: DIGITS[pick([DIGITS.index(word) for word in words])]


#: kind -> (canonical wording, other wordings heard in training, how the answer is computed)
QUESTIONS: dict[str, tuple[str, tuple[str, ...], Callable[[list[str]], str]]] = {
    "count": (
        "How many digits are spoken?",
        ("How many numbers do you hear?", "Count the digits."),
        lambda words: NUMBERS[len(words)],
    ),
    "first": (
        "What is the first digit?",
        ("Which digit comes first?", "What digit is said first?"),
        lambda words: words[0],
    ),
    "last": (
        "What is the last digit?",
        ("Which digit comes last?", "What digit is said last?"),
        lambda words: words[-1],
    ),
    "largest": (
        "What is the largest digit?",
        ("Which digit is the largest?", "What is the biggest digit?"),
        _extreme(max),
    ),
    "smallest": (
        "What is the smallest digit?",
        ("Which digit is the smallest?", "What is the lowest digit?"),
        _extreme(min),
    ),
}


def answer(kind: str, words: list[str]) -> str:
    """The right answer to a kind of question about these words."""
    return QUESTIONS[kind][2](words)


# ------------------------------------------------------------------------------------- word bank


@dataclass(frozen=True)
class Word:
    """One spoken word: float32 at 16 kHz, trimmed, peak 1."""

    text: str
    voice: str
    samples: Samples


#: (words per minute, pitch 0-99) of the renderings of each word in each voice.
RENDERINGS = ((130, 35), (155, 50), (185, 65))


def word_bank(
    voices: tuple[str, ...], *, renderings: int = len(RENDERINGS)
) -> dict[str, list[Word]]:
    """Every digit in every voice at several speeds and pitches, by voice."""
    if shutil.which("espeak-ng") is None:
        raise UnavailableError("espeak-ng is not installed; run 'apt-get install espeak-ng'")
    jobs = [
        (text, voice, speed, pitch)
        for voice in voices
        for speed, pitch in RENDERINGS[:renderings]
        for text in DIGITS
    ]
    with ThreadPoolExecutor(2) as pool:
        words = list(pool.map(lambda job: speak(*job), jobs))
    bank: dict[str, list[Word]] = {voice: [] for voice in voices}
    for word in words:
        bank[word.voice].append(word)
    return bank


def speak(text: str, voice: str, words_per_minute: int, pitch: int) -> Word:
    """One word from espeak-ng, resampled and trimmed of silence."""
    import soundfile
    import soxr

    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch)]
    wave = subprocess.run([*command, text], capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    samples = soxr.resample(samples, rate, SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    trimmed = samples[loud[0] : loud[-1] + 1]
    return Word(text, voice, (trimmed / np.abs(trimmed).max()).astype(np.float32))


# ------------------------------------------------------------------------------------ utterances


#: The most words of an utterance: NUMBERS must be able to count them.
MOST_WORDS = 12
#: In a long clip there is at least one word in so many seconds.
LONG_SECONDS_PER_WORD = 8.0
#: Some recordings are digitally silent between the words, like synthetic ones.
NOISELESS_SHARE = 0.15


@dataclass(frozen=True)
class Utterance:
    """Words of one voice in time; `spans` are the words' first and last samples."""

    samples: Samples
    words: tuple[str, ...]
    voice: str
    spans: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True)
class Variation:
    """What training adds to the voices at hand, so that a model does not learn just them."""

    stretch: float = 0.14  # most that a whole utterance is played faster or slower, pitch included
    repeat: float = 0.15  # share of words that say the word before once more: the hardest to count


def utterance(
    bank: dict[str, list[Word]],
    rng: np.random.Generator,
    *,
    least_words: int = 1,
    most_words: int = 10,
    longest_s: float = 28.0,
    shortest_s: float = 0.0,
    variation: Variation | None = None,
) -> Utterance:
    """One voice says some digits, with gaps, level and noise drawn from `rng`."""
    voice = str(rng.choice(list(bank)))
    count = int(rng.integers(least_words, most_words + 1))
    words = [bank[voice][i] for i in rng.integers(0, len(bank[voice]), count)]
    if variation is not None:
        words = _varied(words, variation, rng)
    room = longest_s * SAMPLE_RATE_HZ
    while _least_samples(words) > room and len(words) > 1:
        words.pop()
    speech = sum(word.samples.size for word in words)
    total = _duration(rng, words, longest_s, shortest_s)
    gaps = _gaps(rng, total - speech, len(words))
    pieces, spans, start = [np.zeros(gaps[0], np.float32)], [], gaps[0]
    for word, gap in zip(words, gaps[1:], strict=True):
        pieces += [word.samples * rng.uniform(0.7, 1.0), np.zeros(gap, np.float32)]
        spans.append((start, start + word.samples.size))
        start += word.samples.size + gap
    samples = _recorded(np.concatenate(pieces), rng)
    return Utterance(samples, tuple(word.text for word in words), voice, tuple(spans))


def _varied(words: list[Word], variation: Variation, rng: np.random.Generator) -> list[Word]:
    """Some words repeat the one before; all are played at one other speed."""
    repeats = rng.random(len(words)) < variation.repeat
    chosen: list[Word] = []
    for word, repeat in zip(words, repeats, strict=True):
        chosen.append(chosen[-1] if repeat and chosen else word)
    speed = float(rng.uniform(1 - variation.stretch, 1 + variation.stretch))
    return [replace(word, samples=_played(word.samples, speed)) for word in chosen]


def _played(samples: Samples, speed: float) -> Samples:
    """Faster and higher above 1, slower and lower below, by linear interpolation."""
    points = np.linspace(0, samples.size - 1, round(samples.size / speed))
    return np.interp(points, np.arange(samples.size), samples).astype(np.float32)


def long_utterance(
    bank: dict[str, list[Word]],
    rng: np.random.Generator,
    *,
    shortest_s: float,
    longest_s: float,
    variation: Variation | None = None,
) -> Utterance:
    """An utterance that lasts between the two, with words in all its parts."""
    seconds = float(rng.uniform(shortest_s, longest_s))
    least = min(MOST_WORDS, max(4, math.ceil(seconds / LONG_SECONDS_PER_WORD)))
    return utterance(
        bank,
        rng,
        least_words=least,
        most_words=MOST_WORDS,
        longest_s=seconds,
        shortest_s=seconds,
        variation=variation,
    )


def _recorded(speech: Samples, rng: np.random.Generator) -> Samples:
    """At a level of -22 to -2 dB, with white noise from -90 to -54 dB of full scale, or none."""
    samples = speech * 10 ** rng.uniform(-1.1, -0.1)
    if rng.random() >= NOISELESS_SHARE:
        samples += rng.standard_normal(samples.size) * 10 ** rng.uniform(-4.5, -2.7)
    return np.clip(samples, -1, 1).astype(np.float32)


def _least_samples(words: list[Word]) -> float:
    """Samples that the words take with 50 ms around each."""
    speech = sum(word.samples.size for word in words)
    return speech + 0.05 * SAMPLE_RATE_HZ * (len(words) + 1)


def _duration(
    rng: np.random.Generator, words: list[Word], longest_s: float, shortest_s: float
) -> int:
    """Samples in all: mostly natural gaps, sometimes spread over whatever is allowed."""
    lowest, highest = _least_samples(words), longest_s * SAMPLE_RATE_HZ
    if shortest_s:
        lowest = max(lowest, shortest_s * SAMPLE_RATE_HZ)
        return round(rng.uniform(lowest, max(lowest, highest)))
    natural = lowest + SAMPLE_RATE_HZ * float(rng.uniform(0.1, 0.1 + 0.45 * (len(words) + 1)))
    if rng.random() < 0.35:
        natural = float(rng.uniform(natural, max(natural, highest)))
    return round(max(lowest, min(natural, highest)))


def _gaps(rng: np.random.Generator, silence: int, words: int) -> list[int]:
    """`words + 1` gaps that sum to `silence`, each at least 50 ms where there is room."""
    least = max(0, min(round(0.05 * SAMPLE_RATE_HZ), silence // (words + 1)))
    shares = rng.dirichlet(np.full(words + 1, 1.5))
    rest = max(0, silence - least * (words + 1))
    return [least + int(share * rest) for share in shares]
