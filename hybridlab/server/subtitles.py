"""Subtitles that can be read: short cues of segments, in the formats SubRip and WebVTT."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hybridlab.models.transcription import Segment

#: What a viewer reads in one look; the usual limits of subtitles.
MAX_CUE_S = 7.0
LINE_CHARS = 42
MAX_LINES = 2
#: A longer pause ends a cue.
PAUSE_S = 1.0
#: Of a word whose times are one moment.
LEAST_CUE_S = 0.1
#: Letters of a stretch without spaces, as Chinese has them, after which a cue may be cut.
UNSPACED_CHARS = 10
_CLAUSE_END = re.compile(r"[.!?…,;:。!?,、;:]['\"”’»)\]]*\s*$")


@dataclass(frozen=True)
class Cue:
    """A text of one or two lines; times in seconds from the beginning of the audio."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    """What is never cut: a word with the space before it."""

    text: str
    start_s: float
    end_s: float


def cues(segments: Sequence[Segment]) -> list[Cue]:
    """Each at most `MAX_CUE_S` long and of `MAX_LINES` lines of `LINE_CHARS`, in order and without
    overlap. A segment that is longer is cut by the times of its words where it has these, else in
    proportion to its letters."""
    found: list[Cue] = []
    for segment in segments:
        for pieces in _portions(_pieces(segment)):
            text = "".join(piece.text for piece in pieces)
            start_s, end_s = pieces[0].start_s, pieces[-1].end_s
            if found:
                start_s = max(start_s, found[-1].end_s)
            end_s = min(max(end_s, start_s + LEAST_CUE_S), start_s + MAX_CUE_S)
            found.append(Cue(start_s, end_s, tuple(_lines(text))))
    return found


def _portions(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """What becomes a cue each."""
    while pieces:
        count = _most(pieces)
        if count < len(pieces) and pieces[count].start_s - pieces[count - 1].end_s <= PAUSE_S:
            count = _cut(pieces, count)
        yield pieces[:count]
        pieces = pieces[count:]


def _most(pieces: list[_Piece]) -> int:
    """How many of them one cue holds; the first whatever it is."""
    text = pieces[0].text
    for count, piece in enumerate(pieces[1:], 1):
        text += piece.text
        long = piece.end_s - pieces[0].start_s > MAX_CUE_S
        paused = piece.start_s - pieces[count - 1].end_s > PAUSE_S
        if long or paused or len(_lines(text)) > MAX_LINES:
            return count
    return len(pieces)


def _cut(pieces: list[_Piece], most: int) -> int:
    """Up to where a clause ends, if that is in the second half of a cue, else so far that the cues
    of all pieces are about as long."""
    for count in range(most, max(0, most // 2 - 1), -1):
        if _CLAUSE_END.search(pieces[count - 1].text):
            return count
    seconds = pieces[-1].end_s - pieces[0].start_s
    letters = sum(len(piece.text) for piece in pieces)
    count = max(math.ceil(seconds / MAX_CUE_S), math.ceil(letters / (MAX_LINES * LINE_CHARS)))
    even_s = pieces[0].start_s + seconds / count
    return max(1, sum(piece.end_s <= even_s for piece in pieces[:most]))


def _pieces(segment: Segment) -> list[_Piece]:
    return _timed(segment) or _proportional(segment)


def _timed(segment: Segment) -> list[_Piece]:
    """The words with their own times; none where these are not the text's."""
    found: list[_Piece] = []
    at = 0
    for word in segment.words:
        begin = segment.text.find(word.text, at)
        if begin < 0 or segment.text[at:begin].strip():
            return []
        end = begin + len(word.text)
        found.append(_Piece(segment.text[at:end], word.start_s, word.end_s))
        at = end
    return [] if segment.text[at:].strip() else found


def _proportional(segment: Segment) -> list[_Piece]:
    texts = [part for word in re.findall(r"\s*\S+", segment.text) for part in _short(word)]
    second = (segment.end_s - segment.start_s) / max(1, sum(map(len, texts)))
    found, at = [], 0
    for text in texts:
        start_s = segment.start_s + at * second
        at += len(text)
        found.append(_Piece(text, start_s, segment.start_s + at * second))
    return found


def _short(word: str) -> list[str]:
    """A word longer than a line is none: text without spaces."""
    if len(word.strip()) <= LINE_CHARS:
        return [word]
    return [word[n : n + UNSPACED_CHARS] for n in range(0, len(word), UNSPACED_CHARS)]


def _lines(text: str) -> list[str]:
    """As few as hold the text; two of about the same length."""
    text = " ".join(text.split())
    lines = textwrap.wrap(text, LINE_CHARS)
    if len(lines) == MAX_LINES:
        narrowest = max(len(text) // MAX_LINES, *map(len, text.split()))
        for width in range(narrowest, LINE_CHARS):
            if len(evened := textwrap.wrap(text, width)) == MAX_LINES:
                return evened
    return lines


# ----------------------------------------------------------------------------------- formats


def srt(segments: Sequence[Segment]) -> str:
    """SubRip: numbered from 1, comma before the milliseconds."""
    return "".join(
        f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n"
        + "\n".join(cue.lines)
        + "\n\n"
        for number, cue in enumerate(cues(segments), 1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT."""
    shown = "".join(
        f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n"
        + "\n".join(map(_escaped, cue.lines))
        + "\n\n"
        for cue in cues(segments)
    )
    return f"WEBVTT\n\n{shown}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;")


def _clock(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{point}{milliseconds:03d}"
