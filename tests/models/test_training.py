"""What the pocket Voxtral is trained on: labels, joined and thinned clips, packed jobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hybridlab import catalog
from hybridlab.models.processors import voxtral_processor
from tools.pocket.speech import QUESTIONS
from tools.pocket.train_voxtral import Job, Prompts, build, pack
from tools.pocket.voxtral_clips import (
    WINDOW_TOKENS,
    Clip,
    join,
    random_join,
    thinned,
    windows_of,
)


def clip(words: dict[int, str], *, windows: int = 1, long: int = 3) -> Clip:
    """A clip whose words begin at these tokens and last for `long` of them."""
    size = windows * WINDOW_TOKENS
    digits, numbers = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.long)
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for number, (start, word) in enumerate(sorted(words.items()), 1):
        digits[start : start + long] = names.index(word) + 1
        numbers[start : start + long] = number
    tokens = torch.arange(size, dtype=torch.bfloat16)[:, None].expand(-1, 4).clone()
    return Clip(tuple(words[start] for start in sorted(words)), tokens, digits, numbers)


def test_labels_say_what_was_heard_so_far() -> None:
    labels = clip({2: "five", 5: "nine", 10: "two"}).labels
    assert labels["onset"].nonzero()[:, 0].tolist() == [2, 5, 10]
    assert labels["count"][:13].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3]
    assert labels["largest"][:13].tolist() == [0, 0, 6, 6, 6, 10, 10, 10, 10, 10, 10, 10, 10]
    assert labels["smallest"][12].item() == 3
    assert labels["digit"][3].item() == 6


def test_windows_are_cut_and_joined_without_loss() -> None:
    whole = clip({10: "one", 400: "two", 420: "three", 900: "two"}, windows=3)
    windows = windows_of(whole)
    assert [window.words for window in windows] == [("one",), ("two", "three"), ("two",)]
    again = join(windows)
    assert again.words == whole.words
    assert torch.equal(again.numbers, whole.numbers)
    assert torch.equal(again.tokens, whole.tokens)


def test_a_window_with_half_a_word_stands_for_nothing() -> None:
    cut = clip({10: "one", WINDOW_TOKENS - 1: "two", 500: "three"}, windows=2)
    assert windows_of(cut) == []


def test_joined_clips_can_be_counted() -> None:
    pool = [clip({10 * n: "one" for n in range(1, count + 1)}) for count in range(8)]
    rng = np.random.default_rng(0)
    counts = {len(random_join(pool, 3, rng).words) for _ in range(50)}
    assert min(counts) >= 4
    assert max(counts) <= 12


def test_thinned_clips_keep_every_word_and_are_equally_long() -> None:
    clips = [clip({20: "one", 100: "two"}), clip({5: "three"}, windows=2)]
    few = thinned(clips, np.random.default_rng(0), most_silence=20)
    assert len({len(own.numbers) for own in few}) == 1
    assert len(few[0].numbers) < 40
    for own, full in zip(few, clips, strict=True):
        assert (own.numbers > 0).sum() == (full.numbers > 0).sum()
        assert own.numbers[own.numbers > 0].tolist() == full.numbers[full.numbers > 0].tolist()
        places = own.tokens[:, 0]
        assert (places[1:] >= places[:-1]).all()  # in the order in which they were heard


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    vocabulary = catalog.voxtral("pocket").text.vocab_size
    return Prompts(voxtral_processor(vocab_size=vocabulary).tokenizer)


def test_every_job_has_its_words_numbered(prompts: Prompts) -> None:
    jobs = prompts.jobs(("one", "seven"), np.random.default_rng(0))
    assert len(jobs) == 1 + len(QUESTIONS)
    transcription = jobs[0]
    assert len(transcription.target) == len(transcription.numbers)
    assert transcription.numbers[0] == 1
    assert transcription.numbers[-1] == 3  # the end comes after two words
    assert transcription.target[-1] == 2


def test_packed_jobs_do_not_see_each_other(prompts: Prompts) -> None:
    """The text model says in one packed row what it says to every job alone."""
    from transformers import DynamicCache

    from hybridlab.models.weights import voxtral_config

    torch.manual_seed(0)
    from transformers import VoxtralForConditionalGeneration

    whole: Any = VoxtralForConditionalGeneration(voxtral_config(catalog.voxtral("pocket")))
    model: Any = build(whole.model.audio_tower).eval()
    text, embed = model.model.language_model, model.model.get_input_embeddings()
    prefix = torch.randn(1, 20, catalog.voxtral("pocket").text.hidden)
    jobs = prompts.jobs(("two", "two", "nine"), np.random.default_rng(0))

    def after_prefix(tokens: torch.Tensor, **more: Any) -> torch.Tensor:
        cache = DynamicCache()
        text(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
        said = text(inputs_embeds=embed(tokens), past_key_values=cache, use_cache=True, **more)
        hidden: torch.Tensor = said.last_hidden_state[0]
        return hidden

    def inputs(job: Job) -> torch.Tensor:
        return torch.tensor([[*job.prompt, *job.target[:-1]]])

    packed = pack([jobs], past=20)
    with torch.inference_mode():
        together = after_prefix(
            packed.tokens, position_ids=packed.positions, attention_mask=packed.mask
        )
        alone = torch.cat([after_prefix(inputs(job)) for job in jobs])
    assert together.shape == alone.shape
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)
    assert (packed.targets >= 0).sum() == sum(len(job.target) for job in jobs)
