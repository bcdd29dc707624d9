"""Words of an answer while it is decoded: pieces that never change and are the text when joined."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from hybridlab.models.base import TokenCallback

#: What a decoder of UTF-8 writes for bytes that are no character, or not yet.
BROKEN = "\ufffd"


class IncrementalText:
    """The text of one row, token by token.

    decode: ids to text, such that the text of a whole is that of its parts in a row wherever these
    meet between two characters; so has a byte-level tokenizer. The finished text is stripped.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._open: list[int] = []  # tokens since the last whole character
        self._given = 0  # letters of theirs that were given
        self._space = ""  # it is given once a word follows
        self._begun = False

    def add(self, token: int) -> str:
        """What is sure now and was not before: no part of a character, no space at an end."""
        self._open.append(token)
        text = self._decode(self._open)
        sure = text.rstrip(BROKEN)
        new = self._space + sure[self._given :]
        self._given = len(sure)
        if sure == text:
            self._open, self._given = [], 0
        words = new.rstrip()
        self._space = new[len(words) :]
        if self._begun or not words:
            return words
        self._begun = True
        return words.lstrip()


class StreamDetokenizer:
    """Turns steps of decoding, one token of each row, into news for a listener."""

    def __init__(
        self,
        rows: int,
        listener: TokenCallback,
        *,
        decode: Callable[[list[int]], str],
        ends: Collection[int],
        first_word: int,
    ) -> None:
        """`first_word`: ids below are control tokens, and no text."""
        self._texts: list[IncrementalText | None] = [IncrementalText(decode) for _ in range(rows)]
        self._listener = listener
        self._ends = frozenset(ends)
        self._first_word = first_word
        #: Whether anybody wants the rest.
        self.wanted = True

    def step(self, tokens: Sequence[int]) -> bool:
        """`wanted`, after this step has been told."""
        pieces = [self._piece(row, token) for row, token in enumerate(tokens)]
        if self.wanted and any(pieces):
            self.wanted = self._listener(pieces)
        return self.wanted

    def _piece(self, row: int, token: int) -> str:
        text = self._texts[row]
        if token in self._ends:
            self._texts[row] = None
            return ""
        return text.add(token) if text is not None and token >= self._first_word else ""
