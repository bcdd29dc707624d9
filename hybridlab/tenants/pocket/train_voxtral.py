"""Training of the pocket Voxtral on the frozen encoder of `pocket-m`.

Encoder outputs are computed once per clip. The prefix `<s>[INST][BEGIN_AUDIO][AUDIO]xN` of a clip
passes the text model once; its KV cache then serves the transcription and every kind of question,
so that one pass over the long prefix trains six jobs. An auxiliary head, dropped afterwards, names
digit and word number at every audio token: counting then is learnt in minutes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.tenants.pocket.optimise import optimise
from hybridlab.tenants.pocket.speech import QUESTIONS, Word, answer, long_utterance, utterance
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

TRAINING_CLIPS = 4000
STEPS = 1500
PEAK_RATE = 2e-3
#: Share of clips with one, two and three windows of 30 s, and how many make a batch.
WINDOW_SHARES = {1: 0.6, 2: 0.25, 3: 0.15}
BATCHES = {1: 16, 2: 8, 3: 6}
WINDOW_FRAMES = catalog.MEL_FRAMES_PER_WINDOW
FRAMES_PER_TOKEN = catalog.ENCODER_POSITIONS // catalog.VOXTRAL_TOKENS_PER_WINDOW
WINDOW_SAMPLES = int(catalog.WINDOW_S * catalog.SAMPLE_RATE_HZ)


#: Token ids of a prompt after the shared prefix, and of what is to be said.
Job = tuple[list[int], list[int]]


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
    encoder: nn.Module, bank: dict[str, list[Word]], *, count: int, seed: int
) -> list[Example]:
    """Random clips of one to three windows with their encoder outputs."""
    rng = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        windows = int(rng.choice(list(WINDOW_SHARES), p=list(WINDOW_SHARES.values())))
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
        # a space before every word: one spelling in tokens wherever it stands
        jobs = [(self.transcribe, self.ids("".join(f" {word}" for word in words)))]
        for kind, (canonical, others, _) in QUESTIONS.items():
            wording = canonical if rng.random() < 0.6 else str(rng.choice(list(others)))
            jobs.append(([*self.ids(wording), 4], self.ids(f" {answer(kind, list(words))}")))
        return [(prompt, [*target, self.eos]) for prompt, target in jobs]


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
    rng = np.random.default_rng(seed)
    examples = make_examples(encoder, bank, count=round(TRAINING_CLIPS * scale), seed=seed + 1)
    model = build(encoder)
    prompts = Prompts(tokenizer)
    token_head = nn.Linear(catalog.voxtral("pocket").text.hidden, FRAME_DIGITS + FRAME_NUMBERS)
    parameters = [*(p for p in model.parameters() if p.requires_grad), *token_head.parameters()]
    batches = _batches(examples, rng)
    model.train()
    optimise(
        parameters,
        lambda: _loss(model, token_head, next(batches), prompts, rng),
        label="Voxtral",
        steps=max(2, round(STEPS * scale)),
        peak_rate=PEAK_RATE,
        weight_decay=0.02,
    )
    return model.eval()


def _batches(examples: list[Example], rng: np.random.Generator) -> Iterator[list[Example]]:
    """Endless batches of clips with the same number of windows."""
    groups = {n: [e for e in examples if e.windows == n] for n in WINDOW_SHARES}
    # shares count clips, so the larger batches of short clips come less often than their share
    weights = np.array([WINDOW_SHARES[n] / BATCHES[n] for n in groups])
    while True:
        windows = int(rng.choice(list(groups), p=weights / weights.sum()))
        chosen = rng.integers(0, len(groups[windows]), BATCHES[windows])
        yield [groups[windows][i] for i in chosen]


def _loss(
    model: Any,
    token_head: nn.Module,
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
    )
    heard = _label_loss(token_head(prefix.last_hidden_state[:, head.shape[1] :]), batch)
    cache = prefix.past_key_values
    jobs = [prompts.jobs(e.words, rng) for e in batch]
    cache.batch_repeat_interleave(len(jobs[0]))
    tokens, targets = _padded([job for own in jobs for job in own])
    past = audio.shape[1] + 3
    positions = torch.arange(past, past + tokens.shape[1]).expand(tokens.shape[0], -1)
    hidden = core.language_model(
        inputs_embeds=embed(tokens), past_key_values=cache, position_ids=positions, use_cache=True
    ).last_hidden_state
    wanted = targets >= 0
    said = functional.cross_entropy(model.lm_head(hidden[wanted]), targets[wanted])
    return said + FRAME_WEIGHT * heard


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


def _padded(jobs: list[Job]) -> tuple[Tensor, Tensor]:
    """Inputs and next-token targets (-100 on prompts and padding), both (jobs, longest)."""
    inputs = [torch.tensor([*prompt, *target[:-1]]) for prompt, target in jobs]
    targets = [torch.tensor([-100] * (len(prompt) - 1) + target) for prompt, target in jobs]
    pad = nn.utils.rnn.pad_sequence
    return pad(inputs, batch_first=True), pad(targets, batch_first=True, padding_value=-100)
