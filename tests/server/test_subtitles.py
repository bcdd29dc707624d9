"""Subtitles: no cue that cannot be read, nothing lost, times that rise."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.models.transcription import Segment, Word
from hybridlab.server.subtitles import LINE_CHARS, MAX_CUE_S, MAX_LINES, cues, srt, vtt

DENSE = (
    "The old harbour was quiet that morning, and the boats lay still beneath a thin white mist. "
    "Nobody spoke. Then, one after another, the engines started; the gulls rose from the roofs and "
    "the whole town seemed to wake at once, as it had done every day for two hundred years."
)


def segment(text: str, start_s: float, end_s: float, words: tuple[Word, ...] = ()) -> Segment:
    return Segment(start_s, end_s, text, (), words=words)


def spoken(text: str, start_s: float, *, second: float = 0.4, pause: float = 0.0) -> Segment:
    """With a time for each word; `pause` stands before the last."""
    words, at_s = [], start_s
    texts = text.split()
    for index, word in enumerate(texts):
        at_s += pause if index == len(texts) - 1 else 0.0
        words.append(Word(word, at_s, at_s + second, 0.9))
        at_s += second
    return segment(text, start_s, at_s, tuple(words))


def check(segments: list[Segment]) -> None:
    found = cues(segments)
    end_s = 0.0
    for cue in found:
        assert end_s <= cue.start_s < cue.end_s
        assert cue.end_s - cue.start_s <= MAX_CUE_S + 1e-6
        assert 1 <= len(cue.lines) <= MAX_LINES
        assert all(0 < len(line) <= LINE_CHARS for line in cue.lines)
        end_s = cue.end_s
    shown = "".join("".join(cue.lines) for cue in found)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", "".join(s.text for s in segments))


@pytest.mark.parametrize("given", [segment(DENSE, 0.0, 25.0), spoken(DENSE, 12.0)])
def test_a_long_segment_becomes_cues_that_can_be_read(given: Segment) -> None:
    check([given])
    found = cues([given])
    assert found[0].start_s == given.start_s
    ends = [cue.lines[-1][-1] for cue in found[:-1]]
    assert sum(end in ".,;" for end in ends) >= len(ends) / 2  # cut where a clause ends


def test_a_cue_is_what_a_viewer_reads_in_one_look() -> None:
    assert (MAX_CUE_S, MAX_LINES, LINE_CHARS) == (7.0, 2, 42)


def test_without_words_a_segment_is_cut_in_proportion_to_its_letters() -> None:
    text = " ".join(["letters"] * 20)  # 159 of them, in 20 s: two cues of half of it each
    found = cues([segment(text, 0.0, 20.0)])
    assert len(found) > 1
    for cue in found:
        letters = len(" ".join(cue.lines)) + 1  # with the space behind it
        assert cue.end_s - cue.start_s == pytest.approx(20.0 * letters / 160, rel=0.05)


def test_a_short_segment_stays_as_it_is() -> None:
    (cue,) = cues([segment("Ten of clubs.", 3.25, 4.5)])
    assert (cue.start_s, cue.end_s, cue.lines) == (3.25, 4.5, ("Ten of clubs.",))


def test_the_first_cue_starts_with_the_first_word_and_not_with_the_silence_before_it() -> None:
    late = Segment(0.0, 20.0, "Good morning.", (), words=spoken("Good morning.", 12.0).words)
    (cue,) = cues([late])
    assert (cue.start_s, round(cue.end_s, 3)) == (12.0, 12.8)


def test_a_pause_between_words_ends_a_cue() -> None:
    first, second = cues([spoken("Wait for it now", 0.0, pause=3.0)])
    assert (first.lines, second.lines) == (("Wait for it",), ("now",))
    assert second.start_s == pytest.approx(4.2)


def test_words_that_are_not_those_of_the_text_do_not_count() -> None:
    odd = segment("one two", 0.0, 2.0, (Word("three", 5.0, 6.0, 0.5),))
    (cue,) = cues([odd])
    assert (cue.start_s, cue.end_s, cue.lines) == (0.0, 2.0, ("one two",))


def test_text_without_spaces_is_cut_too() -> None:
    text = "今天天气很好我们一起去公园散步吧" * 9
    check([segment(text, 0.0, 29.0)])
    words = tuple(Word(letter, 0.25 * n, 0.25 * n + 0.25, 1.0) for n, letter in enumerate(text))
    check([segment(text, 0.0, 36.0, words)])
    # of one length, rather than five of 7 s and a short one
    starts = [cue.start_s for cue in cues([segment(text, 0.0, 36.0, words)])]
    assert starts == [0.0, 6.0, 12.0, 18.0, 24.0, 30.0]


texts = st.lists(st.text("ab,.", min_size=1, max_size=60), min_size=1, max_size=40).map(" ".join)
times = st.floats(0, 30, width=32)


@settings(max_examples=40)
@given(st.lists(st.tuples(texts, times, times), max_size=3))
def test_whatever_the_segments_are_nothing_is_lost_and_no_cue_is_too_long(
    parts: list[tuple[str, float, float]],
) -> None:
    check([segment(text, min(a, b), max(a, b)) for text, a, b in parts])


def test_formats_are_as_players_read_them() -> None:
    segments = [segment("one", 0.0, 6.0), segment("a --> b & <c>", 3661.5, 3665.0406)]
    assert srt(segments) == (
        "1\n00:00:00,000 --> 00:00:06,000\none\n\n"
        "2\n01:01:01,500 --> 01:01:05,041\na --> b & <c>\n\n"
    )
    assert vtt(segments) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:06.000\none\n\n"
        "01:01:01.500 --> 01:01:05.041\na --&gt; b &amp; &lt;c>\n\n"
    )
    assert (srt([]), vtt([])) == ("", "WEBVTT\n\n")
