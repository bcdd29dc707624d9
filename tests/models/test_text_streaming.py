"""Words while they are decoded: pieces that never change and are the text when joined."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import pytest

from hybridlab.audio import Clip
from hybridlab.catalog import DECODINGS
from hybridlab.models.base import AudioLanguageModel
from hybridlab.models.processors import voxtral_processor
from hybridlab.models.text_streaming import IncrementalText, StreamDetokenizer

MOST = 24
QUESTIONS = ["hm", "repeat", "List all digits"]


def of_bytes(tokens: list[int]) -> str:
    return bytes(tokens).decode("utf-8", errors="replace")


@pytest.fixture(scope="module")
def tekken() -> Callable[[list[int]], str]:
    return voxtral_processor(vocab_size=4096).tokenizer.decode  # type: ignore[no-any-return]


def test_a_character_comes_whole_and_a_space_with_the_word_behind_it() -> None:
    text = IncrementalText(of_bytes)
    pieces = [text.add(byte) for byte in "  ü € 😀\n".encode()]
    assert [piece for piece in pieces if piece] == ["ü", " €", " 😀"]
    assert text.add(ord("a")) == "\na"


def test_bytes_that_are_no_character_are_given_when_it_is_sure() -> None:
    text = IncrementalText(of_bytes)
    assert [text.add(byte) for byte in b"a\xe2\x82b"] == ["a", "", "", "\ufffdb"]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_any_bytes_are_a_beginning_of_the_text(seed: int) -> None:
    """Random bytes, most of them in broken characters: what is given is always a beginning, and
    what is left of it at the end are broken characters and spaces."""
    generator = random.Random(seed)
    pool = [*"aé€😀 \n\u00a0".encode(), 0xFF, 0xC0]
    tokens = [generator.choice(pool) for _ in range(200)]
    text, given = IncrementalText(of_bytes), ""
    for count, token in enumerate(tokens, 1):
        given += text.add(token)
        now = of_bytes(tokens[:count]).strip()
        assert now.startswith(given)
        assert re.fullmatch(r"[\ufffd\s]*", now[len(given) :])


def test_the_model_s_own_tokens_give_the_text_that_its_tokenizer_gives(
    tekken: Callable[[list[int]], str],
) -> None:
    generator = random.Random(0)
    for _ in range(20):
        tokens = [generator.randrange(1000, 4096) for _ in range(60)]
        text = IncrementalText(tekken)
        given = "".join(text.add(token) for token in tokens)
        whole = tekken(tokens).strip()
        assert whole.startswith(given)
        assert re.fullmatch(r"[\ufffd\s]*", whole[len(given) :])


def test_every_row_has_its_own_words_up_to_its_end() -> None:
    told: list[Sequence[str]] = []

    def listener(pieces: Sequence[str]) -> bool:
        told.append(pieces)
        return True

    teller = StreamDetokenizer(2, listener, decode=of_bytes, ends=[2], first_word=10)
    for step in ((ord("a"), ord("x")), (5, 5), (2, ord("y")), (ord("b"), 2)):
        assert teller.step(step)
    assert told == [["a", "x"], ["", "y"]]  # nothing is told where nothing is new


def test_a_padded_batch_is_told_as_it_is_said_and_says_the_same(
    llms: dict[str, AudioLanguageModel], clips: list[Clip]
) -> None:
    """With and without a listener: tokens, counts and phases."""
    llm, batch = llms["loop"], [clip.samples() for clip in clips[:3]]
    llm.drain_spans()
    alone = llm.answer(batch, QUESTIONS, max_new_tokens=MOST)
    phases = [span.phase for span in llm.drain_spans()]
    told: list[Sequence[str]] = []
    llm.on_text = lambda pieces: not told.append(pieces)  # type: ignore[func-returns-value]
    prefilled = llm.answer(batch, QUESTIONS, max_new_tokens=MOST)
    llm.on_text = None
    assert prefilled == alone
    assert [text.usage for text in prefilled] == [text.usage for text in alone]
    assert [span.phase for span in llm.drain_spans()] == phases
    assert ["".join(row) for row in zip(*told, strict=True)] == [text.text for text in prefilled]
    assert len(told) >= 2


def test_a_prompt_is_counted_as_it_is_without_the_batch_s_padding(
    llms: dict[str, AudioLanguageModel], clips: list[Clip]
) -> None:
    """Audio counts, with 375 tokens for a window of 30 s."""
    llm, batch = llms["loop"], [clip.samples() for clip in clips[:3]]
    together = llm.answer(batch, QUESTIONS, max_new_tokens=MOST)
    for samples, question, text in zip(batch, QUESTIONS, together, strict=True):
        (alone,) = llm.answer([samples], [question], max_new_tokens=MOST)
        assert text.usage == alone.usage
        assert alone.usage is not None
        asked = llm._processor.tokenizer.encode(question, add_special_tokens=False)  # type: ignore[attr-defined]
        around = len(["<s>", "[INST]", "[BEGIN_AUDIO]", "[/INST]"])
        assert alone.usage.prompt_tokens == around + 375 + len(asked)
        assert alone.finish_reason == "stop"
        assert alone.usage.completion_tokens == len(alone.tokens) + 1  # and the end
        prefilled = llm.prefill(samples).answer(question, max_new_tokens=MOST)
        assert prefilled.usage == alone.usage


@pytest.mark.parametrize("kind", DECODINGS)
def test_an_answer_that_is_cut_says_so(
    kind: str, llms: dict[str, AudioLanguageModel], clips: list[Clip]
) -> None:
    samples = [clips[0].samples()]
    (text,) = llms[kind].answer(samples, ["repeat"], max_new_tokens=2)
    assert text.usage is not None
    assert (text.usage.completion_tokens, text.finish_reason) == (2, "length")


def test_decoding_stops_when_nobody_listens_any_more(
    llms: dict[str, AudioLanguageModel], clips: list[Clip]
) -> None:
    llm, samples = llms["loop"], [clips[0].samples()]
    (whole,) = llm.answer(samples, ["repeat"], max_new_tokens=MOST)
    assert len(whole.tokens) > 2
    told: list[Sequence[str]] = []
    llm.on_text = lambda pieces: bool(told.append(pieces))  # type: ignore[func-returns-value]
    (cut,) = llm.answer(samples, ["repeat"], max_new_tokens=MOST)
    llm.on_text = None
    assert len(told) == 1
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert len(cut.tokens) < len(whole.tokens)
