"""How every Whisper backend transcribes: its windows, and the one rule for what is decoded again,
gone on with, or left out.

`plain`: one pass over each window, without timestamps. `timestamps`: with them, and

- a window is read to its end: where the last timestamp lies well before it, decoding goes on there;
- what the model is unsure of is decoded again with beams, and the more probable text is kept;
- a pass is decoded again at a higher temperature as long as its text is more repetitive or less
  probable than openai-whisper's thresholds allow;
- a stretch that is silent, or that is improbable as a text and probable as no speech, has no words.

No window depends on another, so that all can be decoded in one batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridlab import catalog
from hybridlab.audio import (
    SILENCE_PEAK,
    Samples,
    before_pause,
    frame_peaks,
    quiet_samples,
    windows,
)
from hybridlab.models.base import GenerationResult, SpeechRecognizer, joined
from hybridlab.models.passes import (
    TIMESTAMP_S,
    TIMESTAMPS,
    Fallback,
    Pass,
    compression_ratio,
    no_speech,
    stretches,
)
from hybridlab.models.processors import openai_tokenizer
from hybridlab.models.transcription import (
    DEFAULT_OPTIONS,
    FinishReason,
    Segment,
    TranscribeOptions,
    Word,
    worst,
)

if TYPE_CHECKING:
    from whisper.timing import WordTiming

#: Of one pass; a window goes on from its last timestamp.
USUAL_TOKENS = catalog.WHISPER_MAX_TARGET_POSITIONS // 2
#: With a last timestamp so near the end of a window, nothing is left to read.
NEAR_END_S = 1.0
#: What is 50 dB below the loud parts of its window has no speech in it: so much of it, and more, is
#: passed over before speech, all but the last bit.
QUIET_SHARE = 10 ** (-50 / 20)
LEAST_QUIET_S = 1.0
QUIET_KEPT_S = 0.2
#: A window is read up to so long a pause, then behind it: within one text Whisper may lose what is
#: said on either side.
PAUSE_S = 5.0
#: A pass that gets on by less than this would be followed by one like it.
LEAST_PROGRESS_S = 0.5


@dataclass
class _Window:
    """One window while it is read."""

    samples: Samples
    language: str
    tokens_left: int | None
    #: In samples, from which on it is still to be read.
    read: int = 0
    #: In samples, up to which it is read without a pause.
    pause: int = 0
    segments: list[Segment] = field(default_factory=list)
    #: Frames whose peak lies below this are quiet.
    quiet_peak: float = 0.0
    #: How each of its parts between pauses ended.
    ended: list[FinishReason] = field(default_factory=list)

    def __post_init__(self) -> None:
        loud = float(np.percentile(frame_peaks(self.samples), 95))
        self.quiet_peak = max(SILENCE_PEAK, QUIET_SHARE * loud)

    @property
    def rest(self) -> Samples:
        """What is left before the next pause."""
        return self.samples[self.read : self.pause]

    def find_speech(self) -> bool:
        """Whether there is something left to read; what is quiet before it is passed over."""
        rate, left = catalog.SAMPLE_RATE_HZ, self.samples[self.read :]
        quiet = quiet_samples(left, below=self.quiet_peak)
        if quiet == left.size:
            return False
        if quiet > LEAST_QUIET_S * rate:
            self.read += quiet - round(QUIET_KEPT_S * rate)
        if self.read >= self.pause:
            spoken = before_pause(self.samples[self.read :], below=self.quiet_peak, least_s=PAUSE_S)
            self.pause = min(self.samples.size, self.read + spoken + round(QUIET_KEPT_S * rate))
        return True

    def end_part(self, reason: FinishReason) -> None:
        """Go on behind the pause; where no token may come any more, what is said there is cut."""
        self.ended.append(reason)
        self.read = self.pause
        if self.tokens_left == 0 and self.find_speech():
            self.ended.append("length")
            self.read = self.samples.size


class WindowedRecognizer(SpeechRecognizer):
    """Transcribes windows of at most 30 s."""

    def transcribe(
        self, batch: Sequence[Samples], options: TranscribeOptions = DEFAULT_OPTIONS
    ) -> list[GenerationResult]:
        language = catalog.language_for(self.spec.model, options.language)
        options = replace(options, language=language)
        clips = [windows(samples) for samples in batch]
        pieces = [window for clip in clips for window in clip]
        read = self._read if self.spec.timestamps else self._plain
        with self._call():
            rows = iter(read(pieces, options))
        return [joined([next(rows) for _ in clip]) for clip in clips]

    # --------------------------------------------------------------------------- of a backend

    @abstractmethod
    def _call(self) -> AbstractContextManager[None]:
        """Around all passes of a call: its phases become spans."""

    @abstractmethod
    def _encode(self, pieces: list[Samples], *, beams: int = 1) -> Any:
        """The encoder's output of these windows, which are going to be decoded with so many
        beams."""

    @abstractmethod
    def _detect(self, encoded: Any, row: int) -> str:
        """Whisper's code of the language of an encoded window."""

    @abstractmethod
    def _decode(
        self,
        encoded: Any,
        rows: list[int],
        languages: list[str],
        options: TranscribeOptions,
        *,
        ends: list[int] | None,
    ) -> list[Pass]:
        """One pass over these of the encoded windows, each in its language, with a limit of tokens
        that a window has room for. ends: of each row the timestamp from which on a text may end
        where a segment has just begun (`begins_segment`); None: no timestamps."""

    @abstractmethod
    def _timings(
        self, encoded: Any, row: int, tokens: list[int], language: str, seconds: float
    ) -> list[WordTiming]:
        """When each word of these text tokens is said in an encoded window whose audio lasts so
        many seconds, as openai-whisper's `find_alignment` tells it."""

    # -------------------------------------------------------------------------------- tokens

    @property
    def _tokenizer(self) -> Any:
        return self._tokenizer_of("en")

    def _tokenizer_of(self, language: str, task: str = "transcribe") -> Any:
        vocab_size = catalog.whisper(self.spec.model).vocab_size
        return openai_tokenizer(vocab_size, language=language, task=task)

    @property
    def _fallback(self) -> Fallback:
        return Fallback(self._text)

    @property
    def _first_timestamp(self) -> int:
        return catalog.whisper(self.spec.model).vocab_size - TIMESTAMPS

    def _prompt(self, language: str, options: TranscribeOptions, *, timestamps: bool) -> list[int]:
        """Token ids that a pass begins with."""
        known = self._tokenizer_of(language, options.task)
        ids = list(known.sot_sequence)
        if not timestamps:
            ids.append(known.no_timestamps)
        if options.prompt.strip():
            words = known.encode(f" {options.prompt.strip()}")
            most = catalog.WHISPER_MAX_TARGET_POSITIONS // 2 - 1
            ids = [known.sot_prev, *words[-most:], *ids]
        return ids

    def _limited(
        self, options: TranscribeOptions, most: int | None, *, timestamps: bool
    ) -> TranscribeOptions:
        """With a limit of tokens that a window has room for behind its prompt."""
        prompt = self._prompt("en", options, timestamps=timestamps)
        room = catalog.WHISPER_MAX_TARGET_POSITIONS - len(prompt)
        return replace(options, max_new_tokens=room if most is None else min(room, most))

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(self._words_of(tokens)))

    def _words_of(self, tokens: Sequence[int]) -> list[int]:
        """Without timestamps and other specials; of random weights, whose words mean nothing, every
        token that was decoded."""
        if not self.spec.has_text:
            return list(tokens)
        return [token for token in tokens if token < self._tokenizer.eot]

    # --------------------------------------------------------------------------------- plain

    def _plain(self, pieces: list[Samples], options: TranscribeOptions) -> list[GenerationResult]:
        limited = self._limited(options, options.max_new_tokens, timestamps=False)
        found, languages = self._pass_over(pieces, limited)
        rows = []
        for piece, said, language in zip(pieces, found, languages, strict=True):
            seconds = piece.size / catalog.SAMPLE_RATE_HZ
            segment = self._segment(0.0, seconds, said.tokens, said)
            finish: FinishReason = "stop" if said.ended or not self.spec.has_text else "length"
            rows.append(self._window_text(piece, [segment], finish, language))
        return rows

    def _pass_over(
        self, pieces: list[Samples], options: TranscribeOptions
    ) -> tuple[list[Pass], list[str]]:
        """One pass over each window without timestamps, and the windows' languages."""
        encoded, rows = self._encode(pieces, beams=options.beams), list(range(len(pieces)))
        languages = [options.language or self._detect(encoded, row) for row in rows]
        return self._decode(encoded, rows, languages, options, ends=None), languages

    # ---------------------------------------------------------------------------- timestamps

    def _read(self, pieces: list[Samples], options: TranscribeOptions) -> list[GenerationResult]:
        every = [_Window(piece, options.language, options.max_new_tokens) for piece in pieces]
        while unread := [window for window in every if window.find_speech()]:
            self._read_on(unread, options)
        return [
            self._window_text(one.samples, one.segments, worst(one.ended), one.language)
            for one in every
        ]

    def _read_on(self, unread: list[_Window], options: TranscribeOptions) -> None:
        """One pass over what is left of each of these windows."""
        encoded = self._encode([window.rest for window in unread], beams=options.beams)
        for row, window in enumerate(unread):
            window.language = window.language or self._detect(encoded, row)
        left = [window.tokens_left for window in unread if window.tokens_left is not None]
        limited = self._limited(options, max(left, default=None), timestamps=True)
        for row, said in enumerate(self._passes(encoded, unread, limited)):
            window = unread[row]
            begun, at_s = len(window.segments), window.read / catalog.SAMPLE_RATE_HZ
            seconds = window.rest.size / catalog.SAMPLE_RATE_HZ
            self._take(window, said)
            if options.words and (new := window.segments[begun:]):
                tokens = [token for own in new for token in self._words_of(own.tokens)]
                timings = self._timings(encoded, row, tokens, window.language, seconds)
                window.segments[begun:] = self._with_words(new, timings, at_s)

    def _passes(
        self, encoded: Any, unread: list[_Window], options: TranscribeOptions
    ) -> list[Pass]:
        """A pass over each. What is decoded again is one row at a time, so that what is drawn for a
        window does not depend on the others."""
        languages = [window.language for window in unread]
        ends = [self._end_of(window) for window in unread]
        half = replace(options, max_new_tokens=min(options.max_new_tokens or 0, USUAL_TOKENS))
        found = self._decode(encoded, list(range(len(unread))), languages, half, ends=ends)

        def again(row: int, **changes: Any) -> Pass:
            asked = replace(half, **changes)
            said = self._decode(encoded, [row], [languages[row]], asked, ends=[ends[row]])[0]
            return replace(said, beams=asked.beams)

        for row, said in enumerate(found):
            kept = replace(said, beams=half.beams)
            if options.temperature == 0:  # else whoever wants drawn tokens gets what is drawn
                kept = self._fallback.kept(kept, partial(again, row))
            if options.max_new_tokens != half.max_new_tokens and self._lacks_an_end(kept):
                alike = {"temperature": kept.temperature, "beams": kept.beams}
                kept = again(row, max_new_tokens=options.max_new_tokens, **alike)
            found[row] = kept
        return found

    def _lacks_an_end(self, said: Pass) -> bool:
        """Whether a good text was cut with no timestamp in it to go on from: its window takes more
        tokens than a pass usually has."""
        in_one = len(stretches(said.tokens, self._first_timestamp)) < 2
        return in_one and not said.ended and not self._fallback.is_needed(said)

    def _end_of(self, window: _Window) -> int:
        """The timestamp behind which so little of a window is left that it need not be read."""
        seconds = window.rest.size / catalog.SAMPLE_RATE_HZ - NEAR_END_S
        return self._first_timestamp + max(0, round(seconds / TIMESTAMP_S))

    def _take(self, window: _Window, said: Pass) -> None:
        """Add what a pass said to its window, and find from where it goes on."""
        if no_speech(said) or not self._words_of(said.tokens):
            window.end_part("stop")
            return
        tokens, ended = said.tokens, said.ended
        if window.tokens_left is not None:
            ended = ended and len(tokens) <= window.tokens_left
            tokens = tokens[: window.tokens_left]
            window.tokens_left -= len(tokens)
        rate, first = catalog.SAMPLE_RATE_HZ, self._first_timestamp
        rest_s, at_s = window.rest.size / rate, window.read / rate
        found = stretches(tokens, first)
        exhausted = window.tokens_left == 0 and not ended
        open_end = tokens[-1] < first
        if open_end and not ended and not exhausted and len(found) > 1:
            tokens_dropped = found.pop()  # cut in the middle: read again from its beginning
            goes_on_s = (tokens_dropped[0] - first) * TIMESTAMP_S
        elif open_end:
            goes_on_s = rest_s
        else:
            goes_on_s = (tokens[-1] - first) * TIMESTAMP_S
        for own in found:
            if not self._words_of(own):
                continue
            start_s = max(0, own[0] - first) * TIMESTAMP_S if own[0] >= first else 0.0
            end_s = (own[-1] - first) * TIMESTAMP_S if own[-1] >= first else rest_s
            start_s, end_s = min(start_s, rest_s), min(end_s, rest_s)
            window.segments.append(self._segment(at_s + start_s, at_s + end_s, own, said))
        if exhausted or (open_end and not ended and goes_on_s == rest_s):
            window.end_part("length")
        elif goes_on_s >= rest_s - NEAR_END_S:
            window.end_part("stop")
        elif goes_on_s < LEAST_PROGRESS_S:
            window.end_part("early")
        else:
            window.read += round(goes_on_s * rate)

    # -------------------------------------------------------------------------------- results

    def _segment(self, start_s: float, end_s: float, tokens: Sequence[int], said: Pass) -> Segment:
        text = self._text(tokens)
        return Segment(
            start_s,
            end_s,
            text.strip(),
            tuple(tokens),
            temperature=said.temperature,
            avg_logprob=said.avg_logprob,
            no_speech_prob=said.no_speech_prob,
            compression_ratio=compression_ratio(text.strip()),
        )

    def _with_words(
        self, segments: list[Segment], timings: list[WordTiming], at_s: float
    ) -> list[Segment]:
        """The segments of one pass that began at `at_s`, with the times of their words."""
        from whisper.timing import merge_punctuations

        merge_punctuations(timings, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
        waiting, found = iter(timings), []
        for segment in segments:
            words: list[Word] = []
            count, n_tokens = 0, len(self._words_of(segment.tokens))
            while count < n_tokens and (timing := next(waiting, None)) is not None:
                count += len(timing.tokens)
                if timing.word.strip():
                    start_s, end_s = at_s + float(timing.start), at_s + float(timing.end)
                    words.append(
                        Word(timing.word.strip(), start_s, end_s, float(timing.probability))
                    )
            found.append(replace(segment, words=tuple(words)))
        return found

    def _window_text(
        self, piece: Samples, segments: list[Segment], finish: FinishReason, language: str
    ) -> GenerationResult:
        tokens = [token for segment in segments for token in self._words_of(segment.tokens)]
        return GenerationResult(
            self._text(tokens).strip(),
            tuple(tokens),
            finish,
            segments=tuple(segment for segment in segments if segment.text),
            language=language,
            windows=(finish,),
            audio_s=piece.size / catalog.SAMPLE_RATE_HZ,
        )
