"""Subtitles that can be read: short cues of segments, in the formats SubRip and WebVTT."""

from __future__ import annotations

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
#: A cue is rather cut here than elsewhere, in its second half.
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
    """As many pieces to a cue as it holds, cut at the end of a clause where one is near."""
    held: list[_Piece] = []
    for piece in pieces:
        while held and not _may_join(held, piece):
            count = _cut(held) if piece.start_s - held[-1].end_s <= PAUSE_S else len(held)
            yield held[:count]
            held = held[count:]
        held.append(piece)
    if held:
        yield held


def _may_join(held: list[_Piece], piece: _Piece) -> bool:
    text = "".join(own.text for own in [*held, piece])
    return (
        piece.end_s - held[0].start_s <= MAX_CUE_S
        and piece.start_s - held[-1].end_s <= PAUSE_S
        and len(_lines(text)) <= MAX_LINES
    )


def _cut(held: list[_Piece]) -> int:
    """How many of these pieces become a cue."""
    for count in range(len(held), max(0, len(held) // 2 - 1), -1):
        if _CLAUSE_END.search(held[count - 1].text):
            return count
    return len(held)


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
