"""Speech and other sounds for tests and benchmarks with released weights, made as they are needed.

Read speech comes from Debian's pocketsphinx-testdata (LibriVox, public domain), synthetic speech
from espeak-ng, everything else from numpy with fixed seeds: the same samples on every machine with
the same packages. All of it is float32 mono at 16 kHz in [-1, 1].
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridlab.audio import Samples, read_audio
from hybridlab.catalog import SAMPLE_RATE_HZ
from hybridlab.errors import UnavailableError
from tools.pocket.speech import speak

#: Where Debian's pocketsphinx-testdata lies.
POCKETSPHINX = Path("/usr/share/pocketsphinx/test/data")
#: Between two utterances of a joined recording.
PAUSE_S = 0.25


@dataclass(frozen=True)
class Recording:
    """Samples and what is said in them; '' where nobody speaks."""

    name: str
    samples: Samples
    text: str
    language: str = "en"

    @property
    def audio_s(self) -> float:
        return self.samples.size / SAMPLE_RATE_HZ

    def normalised(self, text: str) -> str:
        """Through Whisper's own normaliser of the language: in English 'mr' is 'mister', elsewhere
        only case and punctuation go."""
        return _normaliser(self.language)(text).strip()

    def alignment(self, transcript: str) -> Any:
        """jiwer's `WordOutput` of this recording's text and a transcript of it, both normalised."""
        import jiwer

        return jiwer.process_words(self.normalised(self.text), self.normalised(transcript))


@functools.cache
def _normaliser(language: str) -> Callable[[str], str]:
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    made: Callable[[str], str] = (
        EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    )
    return made


def check_packages() -> None:
    """`UnavailableError` with the command that installs what is missing."""
    found = {
        "espeak-ng": shutil.which("espeak-ng") is not None,
        "pocketsphinx-testdata": (POCKETSPHINX / "librivox" / "transcription").is_file(),
    }
    missing = [name for name, there in found.items() if not there]
    if missing:
        raise UnavailableError(
            f"no speech without {' and '.join(missing)}; run 'apt-get install {' '.join(missing)}'"
        )


# ---------------------------------------------------------------------------------- read speech


@functools.cache
def librivox() -> tuple[Recording, ...]:
    """Five utterances (25 s, 71 words) of one reader of Sense and Sensibility."""
    return _transcribed(POCKETSPHINX / "librivox", "transcription")


@functools.cache
def cards() -> tuple[Recording, ...]:
    """Five short utterances that name playing cards: 1 to 4 s, one speaker."""
    return _transcribed(POCKETSPHINX / "cards", "cards.transcription")


def _transcribed(folder: Path, listed: str) -> tuple[Recording, ...]:
    """Every utterance of a folder with a transcription in Sphinx's format."""
    lines = (folder / listed).read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"<s> (.+?) +</s> \((\S+)\)", line) for line in lines]
    return tuple(
        Recording(one[2], read_audio(folder / f"{one[2]}.wav"), one[1]) for one in found if one
    )


# ----------------------------------------------------------------------------- synthetic speech

#: Sentences by language, in everyday words that a small Whisper knows.
SENTENCES: dict[str, tuple[str, ...]] = {
    "en": (
        "The morning train to the coast was late again, and nobody on the platform was surprised.",
        "My sister bought fresh bread, two lemons and a bottle of milk at the market.",
        "After lunch we walked along the river until it began to rain.",
        "Please close the window before you leave the office tonight.",
        "The old captain told the children a long story about a ship in the ice.",
        "It takes about twenty minutes to drive from the station to the hospital.",
        "He opened the letter slowly, because he knew what was written inside.",
        "In winter the lake is frozen and people come here to skate.",
        "Two farmers were standing at the gate and talking about the price of wheat.",
        "The doctor said that she should rest for a week and drink plenty of water.",
        "Our neighbours have painted their garden fence green.",
        "I forgot my umbrella in the restaurant, so I had to go back.",
        "Every Friday the choir practises in the small church behind the school.",
        "The museum opens at nine o'clock and closes at six in the evening.",
        "When the lights went out, somebody began to sing quietly.",
        "They sold the house last spring and moved to the mountains.",
    ),
    "de": (
        "Guten Morgen, heute ist Dienstag und das Wetter ist schön.",
        "Der Zug nach Hamburg fährt in zehn Minuten von Gleis drei ab.",
        "Meine Schwester arbeitet seit zwei Jahren in einem großen Krankenhaus.",
        "Nach dem Essen gehen wir mit dem Hund im Park spazieren.",
        "Das Buch liegt auf dem Tisch neben der Lampe.",
        "Am Wochenende besuchen wir unsere Großeltern auf dem Land.",
        "Können Sie mir bitte sagen, wo der Bahnhof ist?",
        "Im Winter ist es hier sehr kalt und die Straßen sind glatt.",
        "Der Arzt sagt, ich soll eine Woche im Bett bleiben und viel Wasser trinken.",
        "Unsere Nachbarn haben ihren Zaun grün gestrichen.",
        "Gestern Abend haben wir zusammen einen alten Film gesehen.",
        "Das Museum öffnet um neun Uhr und schließt am Abend um sechs.",
        "Die Kinder spielen im Garten, bis es dunkel wird.",
        "Mein Vater kocht jeden Sonntag eine große Suppe.",
        "Ich habe meinen Schlüssel im Büro vergessen.",
        "Im Herbst fallen die bunten Blätter von den Bäumen.",
    ),
    "fr": (
        "Bonjour, je voudrais une table pour deux personnes, s'il vous plaît.",
        "Le train pour Paris part dans dix minutes.",
        "Ma sœur travaille dans un grand hôpital depuis deux ans.",
        "Après le déjeuner, nous allons nous promener dans le parc.",
        "Le livre est sur la table, à côté de la lampe.",
        "En hiver, il fait très froid dans les montagnes.",
    ),
    "es": (
        "Buenos días, hoy es martes y hace buen tiempo.",
        "El tren para Madrid sale dentro de diez minutos.",
        "Mi hermana trabaja en un hospital muy grande desde hace dos años.",
        "Después de comer vamos a pasear por el parque.",
        "El libro está sobre la mesa, al lado de la lámpara.",
        "En invierno hace mucho frío en las montañas.",
    ),
    "pl": (
        "Dzień dobry, dzisiaj jest wtorek i jest ładna pogoda.",
        "Pociąg do Warszawy odjeżdża za dziesięć minut.",
        "Moja siostra pracuje w dużym szpitalu od dwóch lat.",
        "Po obiedzie idziemy na spacer do parku.",
        "Książka leży na stole obok lampy.",
        "Zimą w górach jest bardzo zimno.",
    ),
}
#: espeak-ng's voices; English as it is spoken in America, the others their language's own.
VOICES = {"en": "en-us"}
WORDS_PER_MINUTE, PITCH = 150, 50


@functools.cache
def spoken(language: str, variant: str = "") -> tuple[Recording, ...]:
    """The sentences of one language, read by espeak-ng, by one of its variants of the voice."""
    voice = VOICES.get(language, language) + (f"+{variant}" if variant else "")
    return tuple(
        Recording(
            f"{voice}-{i}",
            0.5 * speak(sentence, voice, WORDS_PER_MINUTE, PITCH).samples,
            sentence,
            language,
        )
        for i, sentence in enumerate(SENTENCES[language])
    )


# ------------------------------------------------------------------------------------ non-speech


def _count(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)


def _times(seconds: float) -> NDArray[np.float64]:
    """The second at which each sample lies."""
    times: NDArray[np.float64] = np.arange(_count(seconds)) / SAMPLE_RATE_HZ
    return times


def _at_level(samples: NDArray[Any], level_db: float) -> Samples:
    """With a root mean square so many dB above full scale (below, where negative)."""
    rms = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    scaled: Samples = np.clip(samples * (10 ** (level_db / 20) / rms), -1, 1).astype(np.float32)
    return scaled


def _coloured(seconds: float, exponent: float, seed: int) -> NDArray[np.float64]:
    """Noise whose power falls with frequency to this exponent, from 20 Hz up."""
    n = _count(seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    frequencies = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    spectrum *= np.maximum(frequencies, 20.0) ** (-exponent / 2)
    spectrum[frequencies < 20] = 0
    return np.fft.irfft(spectrum, n)


def white(seconds: float) -> Samples:
    return _at_level(_coloured(seconds, 0, seed=1), -26)


def pink(seconds: float) -> Samples:
    return _at_level(_coloured(seconds, 1, seed=2), -26)


def brown(seconds: float) -> Samples:
    return _at_level(_coloured(seconds, 2, seed=3), -26)


def tone(seconds: float) -> Samples:
    return _at_level(np.sin(2 * np.pi * 440 * _times(seconds)), -20)


def chords(seconds: float) -> Samples:
    """Music-like: a chord a second of four decaying notes with overtones."""
    notes_hz = np.array([[262, 330, 392, 523], [294, 349, 440, 587], [247, 294, 392, 494]])
    t = _times(1.0)
    decay = np.exp(-2 * t)
    bars = [
        sum(
            np.sin(2 * np.pi * pitch * overtone * t) / overtone**2
            for pitch in notes
            for overtone in (1, 2, 3)
        )
        * decay
        for notes in notes_hz
    ]
    return _at_level(np.resize(np.concatenate(bars), _count(seconds)), -22)


def dither(seconds: float) -> Samples:
    """One bit of sixteen: what a recorder leaves of silence."""
    steps = np.random.default_rng(4).integers(-1, 2, _count(seconds))
    return (steps / 2**15).astype(np.float32)


def clicks(seconds: float) -> Samples:
    """A short decaying burst about twice a second, as of a keyboard."""
    rng = np.random.default_rng(5)
    samples = np.zeros(_count(seconds))
    burst = np.exp(-np.arange(160) / 30)
    for start_s in np.arange(0.2, seconds - 0.1, 0.5):
        start = _count(float(start_s) + rng.uniform(0, 0.2))
        room = samples[start : start + burst.size]
        room += (burst * rng.standard_normal(burst.size))[: room.size] * 0.3
    return np.clip(samples, -1, 1).astype(np.float32)


def hum(seconds: float) -> Samples:
    """Mains at 50 Hz with its odd harmonics."""
    t = _times(seconds)
    return _at_level(sum((np.sin(2 * np.pi * 50 * k * t) / k for k in (1, 3, 5, 7)), 0 * t), -30)


def silence(seconds: float) -> Samples:
    """Digital silence: zeros."""
    return np.zeros(_count(seconds), np.float32)


def breaths(seconds: float) -> Samples:
    """Noise in the band of 300 to 3,000 Hz that swells and falls every three seconds."""
    n = _count(seconds)
    spectrum = np.fft.rfft(np.random.default_rng(6).standard_normal(n))
    frequencies = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    spectrum[(frequencies < 300) | (frequencies > 3000)] = 0
    swell = np.maximum(0, np.sin(2 * np.pi * _times(seconds) / 3)) ** 2
    return _at_level(np.fft.irfft(spectrum, n) * swell, -36)


#: Ten sounds in which nobody speaks, each a maker of so many seconds.
NON_SPEECH: dict[str, Callable[[float], Samples]] = {
    maker.__name__: maker
    for maker in (white, pink, brown, tone, chords, dither, clicks, hum, silence, breaths)
}


# ----------------------------------------------------------------------------------------- joins


def joined(
    name: str, recordings: Sequence[Recording], *, pauses_s: float | Sequence[float] = PAUSE_S
) -> Recording:
    """One after the other with digital silence between them: one length of it, or one for each
    gap."""
    gaps = (
        [pauses_s] * (len(recordings) - 1) if isinstance(pauses_s, int | float) else list(pauses_s)
    )
    pieces = [recordings[0].samples]
    for gap_s, recording in zip(gaps, recordings[1:], strict=True):
        pieces += [silence(gap_s), recording.samples]
    text = " ".join(recording.text for recording in recordings if recording.text)
    return Recording(name, np.concatenate(pieces), text, recordings[0].language)


def of_noise(kind: str, seconds: float) -> Recording:
    """One of `NON_SPEECH` to be joined to speech."""
    return Recording(kind, NON_SPEECH[kind](seconds), "")


def noisy(recording: Recording, snr_db: float) -> Recording:
    """With white noise so many dB below the recording's mean power."""
    clean = recording.samples
    noise = np.random.default_rng(8).standard_normal(clean.size)
    noise *= np.sqrt(np.mean(np.square(clean, dtype=np.float64))) * 10 ** (-snr_db / 20)
    mixed = np.clip(clean + noise, -1, 1).astype(np.float32)
    return Recording(
        f"{recording.name}-noise-{snr_db:g}db", mixed, recording.text, recording.language
    )


def shuffled(
    name: str, recordings: Sequence[Recording], seconds: float, *, pause_s: float = PAUSE_S
) -> Recording:
    """All of them in one new order after the other, until it lasts at least so long."""
    rng = np.random.default_rng(7)
    order: list[Recording] = []
    while sum(one.audio_s + pause_s for one in order) - pause_s < seconds:
        if len(order) % len(recordings) == 0:
            turn = rng.permutation(len(recordings))
        order.append(recordings[turn[len(order) % len(recordings)]])
    return joined(name, order, pauses_s=pause_s)


def german(seconds: float) -> Recording:
    """German sentences with short pauses, as many as end within so many seconds."""
    chosen: list[Recording] = []
    for one in spoken("de") * 3:
        if sum(own.audio_s + 0.5 for own in chosen) + one.audio_s > seconds:
            break
        chosen.append(one)
    return joined(f"german-{seconds:g}s", chosen, pauses_s=0.5)


def pauses() -> Recording:
    """Three read utterances with 12 s of silence between them: two stand in one window of 30 s."""
    first, _, third, fourth, _ = librivox()
    return joined("pauses-12s", [first, third, fourth], pauses_s=12)


def leading(kind: str) -> Recording:
    """40 s of one of `NON_SPEECH`, then two sentences."""
    first, second = librivox()[:2]
    return joined(f"leading-{kind}-40s", [of_noise(kind, 40), first, second], pauses_s=[0, PAUSE_S])


def gap() -> Recording:
    """A sentence before and one after 80 s of silence."""
    first, *_, last = librivox()
    return joined("gap-80s", [first, last], pauses_s=80)


@functools.cache
def long_recordings() -> tuple[Recording, ...]:
    """Two minutes and more each: read speech, clean, in noise and with long gaps, and each language
    of `SENTENCES` by two synthetic voices."""
    read = shuffled("librivox", librivox(), 130)
    text = shuffled("librivox-text", librivox(), 40)
    before, between, after = of_noise("pink", 20), of_noise("dither", 40), of_noise("white", 20)
    voices = {language: spoken(language) + spoken(language, "f2") for language in SENTENCES}
    return (
        read,
        noisy(read, 8),
        joined("librivox-gaps", [before, text, between, text, after], pauses_s=0),
        *(shuffled(f"espeak-{language}", own, 120) for language, own in voices.items()),
    )
