"""What is asked of a recogniser, and the parts of what it says. No torch at import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

#: How a text ended. `stop`: the model came to the end of what it had to say. `length`: it was cut
#: at a limit of tokens. `early`: audio behind it was left unread.
FinishReason = Literal["stop", "length", "early"]
#: From the most to the least harmless: of several windows, the last one of these that occurs.
FINISH_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)
Task = Literal["transcribe", "translate"]


def worst(reasons: list[FinishReason]) -> FinishReason:
    """How a text ended whose parts ended so; `stop` for none."""
    return max(reasons, key=FINISH_REASONS.index, default="stop")


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """What a transcript is to be like."""

    #: Whisper's code, as 'de'; '' detects it.
    language: str = "en"
    task: Task = "transcribe"
    #: Words that may stand before the audio: names, spelling. Whisper alone takes one.
    prompt: str = ""
    #: 0 takes the likeliest token; above it tokens are drawn.
    temperature: float = 0.0
    #: 1 is greedy.
    beams: int = 1
    #: Of a window for Whisper, of the whole text for Voxtral. None: what the model itself allows.
    #: With random weights exactly so many are decoded.
    max_new_tokens: int | None = None
    #: Whether each word's times are wanted.
    words: bool = False


@dataclass(frozen=True)
class Word:
    """One word with its punctuation; times in seconds from the beginning of the audio."""

    text: str
    start_s: float
    end_s: float
    probability: float

    def later(self, seconds: float) -> Word:
        return replace(self, start_s=self.start_s + seconds, end_s=self.end_s + seconds)


@dataclass(frozen=True)
class Segment:
    """A stretch of a transcript; times in seconds from the beginning of the audio."""

    start_s: float
    end_s: float
    text: str
    tokens: tuple[int, ...]
    temperature: float = 0.0
    #: Mean of the natural logarithms of the tokens' probabilities; None where it is not known.
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    words: tuple[Word, ...] = ()

    def later(self, seconds: float) -> Segment:
        """The same in an audio that begins so much earlier."""
        return replace(
            self,
            start_s=self.start_s + seconds,
            end_s=self.end_s + seconds,
            words=tuple(word.later(seconds) for word in self.words),
        )


#: English, greedy, as many tokens as the model allows.
DEFAULT_OPTIONS = TranscribeOptions()
