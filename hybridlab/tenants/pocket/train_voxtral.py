"""Training of the pocket Voxtral on the frozen encoder of `pocket-m`.

Encoder outputs are computed once per clip. The prefix `<s>[INST][BEGIN_AUDIO][AUDIO]xN` of a clip
passes the text model once; its KV cache then serves the transcription and every kind of question,
so that one pass over the long prefix trains six jobs.

Auxiliary heads, dropped afterwards, read the middle of the text model: at every audio token they
name digit and word number, at every token to be said the number of its word. The upper layers then
find the audio of a number by attention. At the last layer the same heads helped little: nothing
attends to its output.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.tenants.pocket.optimise import optimise
from hybridlab.tenants.pocket.speech import (
    MOST_WORDS,
    QUESTIONS,
    Word,
    answer,
    long_utterance,
    utterance,
)
from hybridlab.tenants.pocket.train_whisper import (
    FRAME_DIGITS,
    FRAME_NUMBERS,
    FRAME_WEIGHT,
    SILENCE_WEIGHT,
    VARIATION,
    encode,
    frame_labels,
    log_mel,
)

logger = logging.getLogger(__name__)

#: How many clips of one, two and three windows of 30 s make a batch.
BATCHES = {1: 16, 2: 8, 3: 6}


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """A stretch of training on clips of its own with one cycle of the learning rate;
    `window_shares` are the shares of clips with one, two and three windows."""

    clips: int
    steps: int
    peak_rate: float
    window_shares: dict[int, float]


#: Mostly short clips first; then long ones, whose words must be counted across windows.
CYCLES = (
    Cycle(clips=4000, steps=1500, peak_rate=2e-3, window_shares={1: 0.6, 2: 0.25, 3: 0.15}),
    Cycle(clips=3000, steps=900, peak_rate=1.5e-3, window_shares={1: 0.3, 2: 0.35, 3: 0.35}),
)
WINDOW_FRAMES = catalog.MEL_FRAMES_PER_WINDOW
FRAMES_PER_TOKEN = catalog.ENCODER_POSITIONS // catalog.VOXTRAL_TOKENS_PER_WINDOW
WINDOW_SAMPLES = int(catalog.WINDOW_S * catalog.SAMPLE_RATE_HZ)


#: The hidden state that the auxiliary heads read: after so many of the four layers.
MIDDLE_LAYER = 2
#: Numbers of words to be said, and one more for the end after the last.
SPOKEN_NUMBERS = MOST_WORDS + 2


@dataclass(frozen=True)
class Job:
    """Token ids of a prompt after the shared prefix and of what is to be said, and for each of the
    latter the number of its word (-100 where words are not counted)."""

    prompt: list[int]
    target: list[int]
    numbers: list[int]


@dataclass(frozen=True)
class Example:
    """A clip's words and what the frozen encoder makes of it: (windows, 1500, d) in float16;
    `digits` and `numbers` label its audio tokens, (windows x 375,)."""

    words: tuple[str, ...]
    encoded: Tensor
    digits: Tensor
    numbers: Tensor

    @property
    def windows(self) -> int:
        return self.encoded.shape[0]


def window_mels(samples: Samples) -> Tensor:
    """(windows, 128, 3000) exactly as Voxtral's processor computes them: the whole audio padded
    with silence to a multiple of 30 s, its features normalised together, then cut."""
    windows = max(1, math.ceil(samples.size / WINDOW_SAMPLES))
    mel = log_mel([samples], windows * WINDOW_FRAMES, [False])[0]
    return mel.reshape(mel.shape[0], windows, WINDOW_FRAMES).transpose(0, 1)


@torch.inference_mode()
def make_examples(
    encoder: nn.Module,
    bank: dict[str, list[Word]],
    *,
    count: int,
    window_shares: dict[int, float],
    seed: int,
) -> list[Example]:
    """Random clips of one to three windows with their encoder outputs."""
    rng = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        windows = int(rng.choice(list(window_shares), p=list(window_shares.values())))
        longest_s = catalog.WINDOW_S * windows - 0.1
        if windows == 1:
            clip = utterance(bank, rng, longest_s=longest_s, variation=VARIATION)
        else:
            clip = long_utterance(
                bank,
                rng,
                shortest_s=longest_s - catalog.WINDOW_S + 1.0,
                longest_s=longest_s,
                variation=VARIATION,
            )
        encoded = encode(encoder, window_mels(clip.samples))
        digits, numbers = frame_labels([clip], windows * catalog.ENCODER_POSITIONS)
        tokens = [labels[0].reshape(-1, FRAMES_PER_TOKEN).amax(1) for labels in (digits, numbers)]
        examples.append(Example(clip.words, encoded.half().clone(), tokens[0], tokens[1]))
        if (number + 1) % 500 == 0:
            logger.info("encoded %d of %d clips", number + 1, count)
    return examples


class Prompts:
    """Token ids of the jobs after the shared prefix, exactly as the processor makes them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos = 2
        self.transcribe = [4, *self.ids("lang:en"), 34]

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def jobs(self, words: tuple[str, ...], rng: np.random.Generator) -> list[Job]:
        """(prompt, target) of the transcription and of one wording of every question."""
        jobs = [self._transcription(words)]
        for kind, (canonical, others, _) in QUESTIONS.items():
            wording = canonical if rng.random() < 0.6 else str(rng.choice(list(others)))
            target = [*self.ids(f" {answer(kind, list(words))}"), self.eos]
            jobs.append(Job([*self.ids(wording), 4], target, [-100] * len(target)))
        return jobs

    def _transcription(self, words: tuple[str, ...]) -> Job:
        # a space before every word: one spelling in tokens wherever it stands
        pieces = [self.ids(f" {word}") for word in words]
        numbers = [n for n, piece in enumerate(pieces, 1) for _ in piece]
        target = [token for piece in pieces for token in piece]
        return Job(self.transcribe, [*target, self.eos], [*numbers, len(words) + 1])


def build(encoder: nn.Module) -> nn.Module:
    """The pocket Voxtral with `pocket-m`'s trained encoder inside."""
    from transformers import VoxtralForConditionalGeneration

    from hybridlab.tenants.weights import voxtral_config

    model: Any = VoxtralForConditionalGeneration(voxtral_config(catalog.voxtral("pocket")))
    model.model.audio_tower.load_state_dict(encoder.state_dict())
    for parameter in model.model.audio_tower.parameters():
        parameter.requires_grad = False
    trained: nn.Module = model
    return trained


def train_voxtral(
    encoder: nn.Module,
    bank: dict[str, list[Word]],
    tokenizer: Any,
    *,
    seed: int = 0,
    scale: float = 1.0,
) -> nn.Module:
    """Train projector and text model; `scale` multiplies clips and steps."""
    torch.manual_seed(seed)
    student = Student(build(encoder), Heads(catalog.voxtral("pocket").text.hidden))
    for number, cycle in enumerate(CYCLES):
        own_seed = seed + 1 + number
        train_cycle(student, cycle, encoder, bank, Prompts(tokenizer), seed=own_seed, scale=scale)
    return student.model.eval()


@dataclass(frozen=True)
class Student:
    """What is trained: the model, and the heads that are dropped."""

    model: nn.Module
    heads: Heads


def train_cycle(
    student: Student,
    cycle: Cycle,
    encoder: nn.Module,
    bank: dict[str, list[Word]],
    prompts: Prompts,
    *,
    seed: int,
    scale: float = 1.0,
) -> None:
    """One cycle: its clips pass the frozen encoder once, then batches of them train the rest."""
    rng = np.random.default_rng(seed)
    examples = make_examples(
        encoder,
        bank,
        count=round(cycle.clips * scale),
        window_shares=cycle.window_shares,
        seed=seed,
    )
    batches = _batches(examples, cycle.window_shares, rng)
    student.model.train()
    trained = [p for p in student.model.parameters() if p.requires_grad]
    optimise(
        [*trained, *student.heads.parameters()],
        lambda: _loss(student.model, student.heads, next(batches), prompts, rng),
        label="Voxtral",
        steps=max(2, round(cycle.steps * scale)),
        peak_rate=cycle.peak_rate,
        weight_decay=0.02,
    )


def _batches(
    examples: list[Example], window_shares: dict[int, float], rng: np.random.Generator
) -> Iterator[list[Example]]:
    """Endless batches of clips with the same number of windows."""
    groups = {n: [e for e in examples if e.windows == n] for n in window_shares}
    # shares count clips, so the larger batches of short clips come less often than their share
    weights = np.array([window_shares[n] / BATCHES[n] for n in groups])
    while True:
        windows = int(rng.choice(list(groups), p=weights / weights.sum()))
        chosen = rng.integers(0, len(groups[windows]), BATCHES[windows])
        yield [groups[windows][i] for i in chosen]


def _loss(
    model: Any,
    heads: Heads,
    batch: list[Example],
    prompts: Prompts,
    rng: np.random.Generator,
) -> Tensor:
    from transformers import DynamicCache

    core, rows = model.model, len(batch)
    encoded = torch.stack([e.encoded.float() for e in batch])
    folded = encoded.reshape(rows, -1, catalog.voxtral("pocket").encoder.ffn)
    audio = core.multi_modal_projector(folded)
    embed = core.get_input_embeddings()
    head = embed(torch.tensor([1, 3, 25])).expand(rows, -1, -1)
    prefix = core.language_model(
        inputs_embeds=torch.cat([head, audio], dim=1),
        past_key_values=DynamicCache(),
        use_cache=True,
        output_hidden_states=True,
    )
    middle = prefix.hidden_states[MIDDLE_LAYER][:, head.shape[1] :]
    heard = _label_loss(heads.heard(middle), batch)
    cache = prefix.past_key_values
    jobs = [prompts.jobs(e.words, rng) for e in batch]
    cache.batch_repeat_interleave(len(jobs[0]))
    tokens, targets, numbers = _padded([job for own in jobs for job in own])
    past = audio.shape[1] + 3
    positions = torch.arange(past, past + tokens.shape[1]).expand(tokens.shape[0], -1)
    spoken = core.language_model(
        inputs_embeds=embed(tokens),
        past_key_values=cache,
        position_ids=positions,
        use_cache=True,
        output_hidden_states=True,
    )
    wanted, counted = targets >= 0, numbers >= 0
    said = functional.cross_entropy(
        model.lm_head(spoken.last_hidden_state[wanted]), targets[wanted]
    )
    place = heads.place(spoken.hidden_states[MIDDLE_LAYER][counted])
    return said + FRAME_WEIGHT * (heard + functional.cross_entropy(place, numbers[counted]))


class Heads(nn.Module):
    """What the middle of the text model must know: what is heard, and which word comes next."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.heard = nn.Linear(hidden, FRAME_DIGITS + FRAME_NUMBERS)
        self.place = nn.Linear(hidden, SPOKEN_NUMBERS)


def _label_loss(logits: Tensor, batch: list[Example]) -> Tensor:
    """Cross entropy of digit and word number at every audio token."""
    digits = torch.stack([e.digits for e in batch]).flatten()
    numbers = torch.stack([e.numbers for e in batch]).flatten()
    weight = torch.ones(FRAME_NUMBERS)
    weight[0] = SILENCE_WEIGHT
    digit_logits, number_logits = logits[..., :FRAME_DIGITS], logits[..., FRAME_DIGITS:]
    return functional.cross_entropy(digit_logits.flatten(0, 1), digits) + functional.cross_entropy(
        number_logits.flatten(0, 1), numbers, weight=weight
    )


def _padded(jobs: list[Job]) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, next-token targets and numbers of their words (-100 on prompts and padding), each
    (jobs, longest)."""
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True, padding_value=-100)
    silent = [[-100] * (len(job.prompt) - 1) for job in jobs]
    inputs = [torch.tensor([*job.prompt, *job.target[:-1]]) for job in jobs]
    targets = [torch.tensor(own + job.target) for own, job in zip(silent, jobs, strict=True)]
    numbers = [torch.tensor(own + job.numbers) for own, job in zip(silent, jobs, strict=True)]
    return pad(inputs).clamp(min=0), pad(targets), pad(numbers)
