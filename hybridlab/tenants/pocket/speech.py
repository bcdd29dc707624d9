"""Synthetic speech for the pocket models: spoken English digits in many voices, with questions.

espeak-ng (a Debian package) speaks each word; utterances are words with random gaps, levels and
light noise. Importing this module needs neither torch nor espeak-ng.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
TRAINING_VOICES = tuple(
    f"{ACCENTS[a]}+{VARIANTS[v]}" for a, v in _ALL_VOICES if not _is_held_out(a, v)
)
HELD_OUT_VOICES = tuple(f"{ACCENTS[a]}+{VARIANTS[v]}" for a, v in _ALL_VOICES if _is_held_out(a, v))

# ------------------------------------------------------------------------------------- questions


def _extreme(pick: Callable[[list[int]], int]) -> Callable[[list[str]], str]:
    return lambda words: DIGITS[pick([DIGITS.index(word) for word in words])]


#: kind -> (canonical wording, other wordings heard in training, how the answer is computed)
QUESTIONS: dict[str, tuple[str, tuple[str, ...], Callable[[list[str]], str]]] = {
    "count": (
        "How many digits are spoken?",
        ("How many numbers do you hear?",),
        lambda words: NUMBERS[len(words)],
    ),
    "first": (
        "What is the first digit?",
        ("Which digit comes first?",),
        lambda words: words[0],
    ),
    "last": (
        "What is the last digit?",
        ("Which digit comes last?",),
        lambda words: words[-1],
    ),
    "largest": (
        "What is the largest digit?",
        ("Which digit is the largest?",),
        _extreme(max),
    ),
    "smallest": (
        "What is the smallest digit?",
        ("Which digit is the smallest?",),
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


def word_bank(voices: tuple[str, ...], *, renderings: int = len(RENDERINGS)) -> dict[str, list[Word]]:
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


@dataclass(frozen=True)
class Utterance:
    """Words of one voice in time."""

    samples: Samples
    words: tuple[str, ...]
    voice: str

    @property
    def text(self) -> str:
        return " ".join(self.words)


def utterance(
    bank: dict[str, list[Word]],
    rng: np.random.Generator,
    *,
    most_words: int = 10,
    longest_s: float = 28.0,
    shortest_s: float = 0.0,
) -> Utterance:
    """One voice says 1 to `most_words` digits, with gaps, level and noise drawn from `rng`."""
    voice = str(rng.choice(list(bank)))
    count = int(rng.integers(1, most_words + 1))
    words = [bank[voice][i] for i in rng.integers(0, len(bank[voice]), count)]
    speech = sum(word.samples.size for word in words)
    while speech > longest_s * SAMPLE_RATE_HZ and len(words) > 1:
        speech -= words.pop().samples.size
    total = _duration(rng, speech, count, longest_s, shortest_s)
    gaps = _gaps(rng, total - speech, len(words))
    pieces = [np.zeros(gaps[0], np.float32)]
    for word, gap in zip(words, gaps[1:], strict=True):
        pieces += [word.samples * rng.uniform(0.7, 1.0), np.zeros(gap, np.float32)]
    samples = np.concatenate(pieces) * 10 ** rng.uniform(-1.1, -0.1)
    samples += rng.standard_normal(samples.size).astype(np.float32) * 10 ** rng.uniform(-4.5, -2.7)
    return Utterance(
        np.clip(samples, -1, 1).astype(np.float32), tuple(word.text for word in words), voice
    )


def _duration(
    rng: np.random.Generator, speech: int, count: int, longest_s: float, shortest_s: float
) -> int:
    """Samples in all: mostly natural gaps, sometimes spread over whatever is allowed."""
    natural = speech + SAMPLE_RATE_HZ * float(rng.uniform(0.2, 0.2 + 0.5 * (count + 1)))
    if rng.random() < 0.35:
        natural = float(rng.uniform(natural, max(natural, longest_s * SAMPLE_RATE_HZ)))
    lowest = max(shortest_s * SAMPLE_RATE_HZ, speech + 0.05 * SAMPLE_RATE_HZ * (count + 1))
    if shortest_s:
        natural = float(rng.uniform(lowest, longest_s * SAMPLE_RATE_HZ))
    return round(max(lowest, min(natural, longest_s * SAMPLE_RATE_HZ)))


def _gaps(rng: np.random.Generator, silence: int, words: int) -> list[int]:
    """`words + 1` gaps that sum to `silence`, inner ones at least 50 ms where there is room."""
    least = min(round(0.05 * SAMPLE_RATE_HZ), silence // (words + 1))
    shares = rng.dirichlet(np.ones(words + 1))
    rest = silence - least * (words + 1)
    return [least + int(share * rest) for share in shares]
