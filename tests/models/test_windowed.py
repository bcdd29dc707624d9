"""The rule by which every Whisper backend reads its windows, over a backend that says what it is
told to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.catalog import UNSURE_BEAMS
from hybridlab.devices import CpuDevice
from hybridlab.models.base import GenerationResult, ModelSpec
from hybridlab.models.passes import TEMPERATURES, Pass
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.models.windowed import WindowedRecognizer

RATE = catalog.SAMPLE_RATE_HZ
FIRST = catalog.whisper("tiny").vocab_size - 1501
LIKELY = {"avg_logprob": -0.2, "no_speech_prob": 0.1}


def at(seconds: float) -> int:
    """The token of a timestamp."""
    return FIRST + round(seconds / 0.02)


def tone(seconds: float, level: float = 0.1) -> Samples:
    return (level * np.sin(np.arange(round(seconds * RATE)))).astype(np.float32)


class Scripted(WindowedRecognizer):
    """Each pass over a row says the next thing of its script: text, or timestamps in seconds."""

    def __init__(self, *script: Any, decoding: str = "timestamps") -> None:
        spec = ModelSpec(
            model="tiny",
            backend="openai-whisper",
            weights="local",
            dtype="float32",
            asr_decoding=decoding,  # type: ignore[arg-type]
        )
        super().__init__(spec, CpuDevice())
        self.script = list(script)
        self.passes: list[tuple[float, str, TranscribeOptions]] = []

    loaded = True

    def load(self) -> None: ...

    def unload(self) -> None: ...

    def module(self) -> None: ...

    @contextmanager
    def _call(self) -> Iterator[None]:
        yield

    def _encode(self, pieces: list[Samples], *, beams: int = 1) -> list[float]:
        return [piece.size / RATE for piece in pieces]

    def _detect(self, encoded: list[float], row: int) -> str:
        return "de"

    def _decode(
        self,
        encoded: list[float],
        rows: list[int],
        languages: list[str],
        options: TranscribeOptions,
        *,
        ends: list[int] | None,
    ) -> list[Pass]:
        found = []
        for row, language in zip(rows, languages, strict=True):
            self.passes.append((encoded[row], language, options))
            said = self.script.pop(0)
            if isinstance(said, tuple):
                said = Pass(self.ids(said), True, options.temperature, **LIKELY)
            found.append(replace(said, temperature=options.temperature))
        return found

    def _timings(self, *_: Any) -> list[Any]:
        raise NotImplementedError

    def ids(self, said: Sequence[str | float]) -> tuple[int, ...]:
        parts = [self._tokenizer.encode(one) if isinstance(one, str) else [at(one)] for one in said]
        return tuple(token for part in parts for token in part)


def read(model: Scripted, samples: Samples, **options: Any) -> GenerationResult:
    (text,) = model.transcribe([samples], TranscribeOptions(**options))
    assert not model.script  # all was asked for
    return text


def spans(text: GenerationResult) -> list[tuple[float, float, str]]:
    return [(round(s.start_s, 2), round(s.end_s, 2), s.text) for s in text.segments]


def test_a_window_that_is_read_to_its_end() -> None:
    model = Scripted((0.0, " One", 4.0, 4.0, " two.", 9.6))
    text = read(model, tone(10.0))
    assert (text.text, text.finish_reason, text.windows) == ("One two.", "stop", ("stop",))
    assert spans(text) == [(0.0, 4.0, "One"), (4.0, 9.6, "two.")]
    assert (text.language, text.audio_s) == ("en", 10.0)
    assert all(token < FIRST for token in text.tokens)
    assert text.segments[0].tokens[0] == at(0.0)  # as openai-whisper's have them
    assert text.segments[0].compression_ratio is not None


def test_reading_goes_on_where_the_last_timestamp_lies() -> None:
    model = Scripted((0.0, " Guten Morgen!", 2.0), (0.5, " Heute", 18.0))
    text = read(model, tone(20.0), language="de")
    assert [seconds for seconds, *_ in model.passes] == [20.0, 18.0]
    assert text.text == "Guten Morgen! Heute"
    assert spans(text) == [(0.0, 2.0, "Guten Morgen!"), (2.5, 20.0, "Heute")]
    assert text.finish_reason == "stop"


def test_what_was_begun_and_not_ended_is_read_again() -> None:
    """A timestamp that nothing follows, and a text that was cut, begin anew."""
    model = Scripted((0.0, " One.", 3.0, 3.0))
    cut = Pass(model.ids((0.0, " two.", 4.0, 4.0, " thr")), False, **LIKELY)
    model.script += [cut, (0.0, " three.", 3.0)]
    text = read(model, tone(10.0))
    assert [seconds for seconds, *_ in model.passes] == [10.0, 7.0, 3.0]
    assert (text.text, text.finish_reason) == ("One. two. three.", "stop")


def test_a_pass_that_gets_nowhere_leaves_audio_unread() -> None:
    text = read(Scripted((0.0, " One", 0.2)), tone(10.0))
    assert (text.text, text.finish_reason) == ("One", "early")


def test_a_limit_of_tokens_cuts_and_says_so() -> None:
    model = Scripted()
    model.script.append(Pass(model.ids((0.0, " One two three"))[:3], False, **LIKELY))
    text = read(model, tone(10.0), max_new_tokens=3)
    assert (text.finish_reason, len(text.segments[0].tokens)) == ("length", 3)
    assert model.passes[0][2].max_new_tokens == 3


def test_a_limit_is_of_the_window_and_not_of_each_pass() -> None:
    model = Scripted((0.0, " One.", 2.0))
    n_first = len(model.ids((0.0, " One.", 2.0)))
    model.script.append(Pass(model.ids((0.0, " two")), False, **LIKELY))
    text = read(model, tone(10.0), max_new_tokens=n_first + 2)
    assert text.finish_reason == "length"
    assert model.passes[1][2].max_new_tokens == 2


@pytest.mark.parametrize("asked", [445, 448, 100_000])
def test_a_limit_above_what_a_window_has_room_for_is_clamped(asked: int) -> None:
    model = Scripted(Pass((5, 6), True), decoding="plain")
    read(model, tone(1.0), max_new_tokens=asked)
    assert model.passes[0][2].max_new_tokens == 444  # 448 less <|sot|><|en|><|task|><|notime|>


def test_a_prompt_takes_room() -> None:
    model = Scripted(Pass((5, 6), True), decoding="plain")
    read(model, tone(1.0), prompt="Austen, Dashwood")
    words = model._tokenizer.encode(" Austen, Dashwood")
    assert model.passes[0][2].max_new_tokens == 444 - len(words) - 1
    ids = model._prompt("en", TranscribeOptions(prompt=" Austen, Dashwood"), timestamps=False)
    assert ids[: len(words) + 1] == [model._tokenizer.sot_prev, *words]
    long = model._prompt("en", TranscribeOptions(prompt="a b " * 500), timestamps=True)
    assert len(long) == 1 + 223 + 3


def test_silence_is_not_decoded() -> None:
    text = read(Scripted(), np.zeros(40 * RATE, np.float32))
    assert (text.text, text.segments, text.finish_reason) == ("", (), "stop")


def test_quiet_before_speech_is_passed_over() -> None:
    model = Scripted((0.2, " One", 5.2))
    text = read(model, np.concatenate([tone(20.0, 1e-4), tone(5.0)]))
    assert model.passes[0][0] == pytest.approx(5.2)
    assert spans(text) == [(20.0, 25.0, "One")]


def paused(seconds: float) -> Samples:
    """4 s and 5 s with a pause between them and one of 6 s at the end."""
    return np.concatenate([tone(4.0), tone(seconds, 1e-5), tone(5.0), tone(6.0, 1e-5)])


def test_each_side_of_a_long_pause_is_read_by_itself() -> None:
    model = Scripted((0.0, " One.", 4.0), (0.2, " Two.", 5.2))
    text = read(model, paused(6.0))
    assert [seconds for seconds, *_ in model.passes] == pytest.approx([4.2, 5.4])
    assert spans(text) == [(0.0, 4.0, "One."), (10.0, 15.0, "Two.")]
    assert (text.finish_reason, text.windows) == ("stop", ("stop",))


def test_a_short_pause_is_read_with_what_surrounds_it() -> None:
    model = Scripted((0.0, " One.", 4.0, 7.0, " Two.", 12.0))
    assert read(model, paused(3.0)).text == "One. Two."
    assert [seconds for seconds, *_ in model.passes] == pytest.approx([12.2])


def test_what_is_lost_before_a_pause_is_told_and_what_comes_behind_it_is_read() -> None:
    text = read(Scripted((0.0, " One.", 0.2), (0.2, " Two.", 5.2)), paused(6.0))
    assert (text.text, text.finish_reason) == ("One. Two.", "early")
    no_speech = Pass((), True, 0.0, -1.2, 0.7)
    text = read(Scripted(no_speech, (0.2, " Two.", 5.2)), paused(6.0))
    assert (text.text, text.finish_reason) == ("Two.", "stop")


def test_behind_a_pause_nothing_is_read_where_no_token_is_left() -> None:
    model = Scripted()
    said = model.ids((0.0, " One", 4.0))
    model.script.append(Pass(said, True, **LIKELY))
    text = read(model, paused(6.0), max_new_tokens=len(said))
    assert (text.text, text.finish_reason) == ("One", "length")


def test_no_speech_is_no_text() -> None:
    model = Scripted()
    model.script.append(Pass(model.ids((0.0, " you", 2.0)), True, 0.0, -1.2, 0.7))
    assert read(model, tone(3.0)).text == ""
    # a text that is probable stays, however probable silence is
    model.script.append(Pass(model.ids((0.0, " you", 3.0)), True, 0.0, -0.3, 0.7))
    assert read(model, tone(3.0)).text == "you"


def test_a_doubtful_pass_is_decoded_again_until_it_is_not() -> None:
    model = Scripted()
    loop = Pass(model.ids((0.0, " and" * 100, 9.8)), True, 0.0, -0.1, 0.1)
    improbable = Pass(model.ids((0.0, " xyz", 9.8)), True, 0.0, -1.5, 0.1)
    model.script += [loop, improbable, (0.0, " One", 9.8)]
    text = read(model, tone(10.0), beams=5)
    assert text.text == "One"
    assert text.segments[0].temperature == TEMPERATURES[2]
    assert [options.temperature for *_, options in model.passes] == list(TEMPERATURES[:3])
    assert [options.beams for *_, options in model.passes] == [5, 1, 1]


def test_where_all_are_doubtful_the_most_probable_that_does_not_repeat_itself_is_taken() -> None:
    model = Scripted()
    for logprob, words in zip(
        (-1.9, -2.1, -0.1, -1.3, -1.6, -2.0, -4.0),
        (" a", " a with beams", " and" * 100, " b", " c", " d", " e"),
        strict=True,
    ):
        model.script.append(Pass(model.ids((0.0, words, 9.8)), True, 0.0, logprob, 0.1))
    text = read(model, tone(10.0))
    assert (text.text, text.segments[0].temperature) == ("b", TEMPERATURES[2])


@pytest.mark.parametrize(
    ("greedy", "with_beams", "kept"),
    [
        ((" One", -0.5), (" two", -0.45), "two"),
        ((" One", -0.5), (" two", -0.49), "One"),  # hardly more probable
        ((" One", -0.5), (" two", -0.55), "One"),
        ((" One", -0.5), (" and" * 100, -0.1), "One"),
        # compressed 2.2 times, below the threshold of 2.4
        ((" One", -0.9), (" and" * 8, -0.5), "One"),
        ((" and" * 100, -0.1), (" two", -0.9), "two"),
    ],
)
def test_what_the_model_is_unsure_of_is_decoded_again_with_beams(
    greedy: tuple[str, float], with_beams: tuple[str, float], kept: str
) -> None:
    model = Scripted()
    for words, logprob in (greedy, with_beams):
        model.script.append(Pass(model.ids((0.0, words, 9.8)), True, 0.0, logprob, 0.1))
    assert read(model, tone(10.0)).text == kept
    asked = [(options.temperature, options.beams) for *_, options in model.passes]
    assert asked == [(0.0, 1), (0.0, UNSURE_BEAMS)]


def test_a_text_with_beams_that_was_cut_is_decoded_whole_with_them() -> None:
    model = Scripted()
    unsure = Pass(model.ids((0.0, " xyz", 9.8)), True, 0.0, -0.6, 0.1)
    cut = Pass(model.ids((0.0, " one two three")), False, **LIKELY)
    model.script += [unsure, cut, (0.0, " one two three four", 9.8)]
    assert read(model, tone(10.0)).text == "one two three four"
    last = model.passes[-1][2]
    assert (last.max_new_tokens, last.temperature, last.beams) == (445, 0.0, UNSURE_BEAMS)


@pytest.mark.parametrize("doubtful", [False, True])
def test_a_text_without_a_timestamp_to_go_on_from_is_decoded_whole(doubtful: bool) -> None:
    """At the temperature of the pass that was good enough."""
    model = Scripted()
    cut = Pass(model.ids((0.0, " one two three")), False, **LIKELY)
    whole = Pass(model.ids((0.0, " one two three four", 9.8)), True, **LIKELY)
    improbable = Pass(model.ids((0.0, " xyz", 9.8)), True, 0.0, -1.5, 0.1)
    model.script += [*([improbable] if doubtful else []), cut, whole]
    text = read(model, tone(10.0), beams=5)
    assert (text.text, text.finish_reason) == ("one two three four", "stop")
    last = model.passes[-1][2]
    asked = (last.max_new_tokens, last.temperature, last.beams)
    assert asked == ((445, TEMPERATURES[1], 1) if doubtful else (445, 0.0, 5))


def test_drawn_tokens_are_taken_as_they_are() -> None:
    model = Scripted()
    model.script.append(Pass(model.ids((0.0, " xyz", 9.8)), True, 0.7, -1.5, 0.1))
    assert read(model, tone(10.0), temperature=0.7).text == "xyz"


def test_language_is_detected_for_each_window_and_told() -> None:
    model = Scripted((0.0, " Eins.", 2.0), (0.0, " zwei.", 8.0))
    text = read(model, tone(10.0), language="")
    assert [language for _, language, _ in model.passes] == ["de", "de"]
    assert text.language == "de"


def test_windows_are_joined_with_their_times() -> None:
    model = Scripted((0.0, " One.", 29.0), (0.0, " Two.", 29.0))
    text = read(model, tone(50.0))
    assert text.text == "One. Two."
    first, second = text.segments
    assert first.end_s <= second.start_s < 50.0
    assert (text.windows, text.audio_s) == (("stop", "stop"), 50.0)


def test_plain_decoding_is_one_pass_without_thresholds() -> None:
    model = Scripted(decoding="plain")
    loop = model.ids((" and" * 100,))
    model.script.append(Pass(loop, False, 0.0, -5.0, 0.9))
    text = read(model, tone(10.0))
    assert text.tokens == loop
    assert (text.finish_reason, spans(text)[0][:2]) == ("length", (0.0, 10.0))
