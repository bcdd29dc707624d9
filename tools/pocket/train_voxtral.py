"""Training of the pocket Voxtral on the frozen encoder of `pocket-m`.

The prefix `<s>[INST][BEGIN_AUDIO][AUDIO]xN` of a clip passes the text model once; behind it the
transcription and every kind of question are packed into one sequence in which no job sees another,
so that one pass trains six jobs.

Auxiliary heads, dropped afterwards, name at every audio token what the layers should have found out
by then: where words begin, then which digit it is and how many words there were, then the largest
and smallest so far. Without them counting is not learnt in this time, and the answers follow from
the count. A first cycle on clips without most of their silence costs little and learns nearly all;
it keeps more of the silence towards its end, as counting does not carry over to full clips at
once. The second cycle learns to find the words in those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridlab import catalog
from tools.pocket.optimise import optimise
from tools.pocket.speech import MOST_WORDS, QUESTIONS, Word, answer
from tools.pocket.train_whisper import (
    FRAME_DIGITS,
    FRAME_NUMBERS,
    FRAME_WEIGHT,
    SILENCE_WEIGHT,
)
from tools.pocket.voxtral_clips import (
    Clip,
    encode_clips,
    random_join,
    thinned,
    windows_of,
)

TRAINING_CLIPS = 4000
#: Steps and peak learning rate on thinned and on full clips.
THIN_STEPS, THIN_RATE = 2500, 3e-3
FULL_STEPS, FULL_RATE = 1200, 2e-3
WEIGHT_DECAY = 0.02
#: Shares of clips with one, two and three windows: of thinned ones each by itself, of full ones
#: whole batches, which must be equally long.
SHARES = {1: 0.3, 2: 0.35, 3: 0.35}
THIN_BATCH = 32
FULL_BATCHES = {1: 16, 2: 8, 3: 6}
#: So many of the longer clips are windows of others, joined.
JOINED_SHARE = 0.6
#: Thinned clips keep so many silent tokens at most, first and last; it grows with the square.
FIRST_SILENCE, LAST_SILENCE = 20, 240
#: Windows with more words are not joined: MOST_WORDS is soon reached.
MOST_WINDOW_WORDS = 8

#: What a head reads: the label, the layer it reads after (0: the projector), how many classes.
HEADS = {
    "begins": ("onset", 0, 2),
    "sounds": ("digit", 0, FRAME_DIGITS),
    "digit": ("digit", 2, FRAME_DIGITS),
    "number": ("number", 2, FRAME_NUMBERS),
    "count": ("count", 2, FRAME_NUMBERS),
    "largest": ("largest", 3, FRAME_DIGITS),
    "smallest": ("smallest", 3, FRAME_DIGITS),
    "said": ("digit", 4, FRAME_DIGITS),
}
#: Cross entropy weighs rare classes up: beginnings of words, numbers against silence.
CLASS_WEIGHTS = {
    "begins": torch.tensor([1.0, 5.0]),
    "number": torch.tensor([SILENCE_WEIGHT] + [1.0] * (FRAME_NUMBERS - 1)),
}
#: After this layer the text side knows which word is to be said next, or the end.
PLACE_LAYER, PLACES = 2, MOST_WORDS + 2


@dataclass(frozen=True)
class Job:
    """Token ids of a prompt after the shared prefix and of what is to be said, and for each of the
    latter the number of its word (-100 where words are not counted)."""

    prompt: list[int]
    target: list[int]
    numbers: list[int]


class Prompts:
    """The jobs of a clip in token ids, exactly as the processor makes them."""

    def __init__(self, tokenizer: Any) -> None:
        self.ids = cache(lambda text: list(tokenizer.encode(text, add_special_tokens=False)))
        self.eos = 2
        self.transcribe = [4, *self.ids("lang:en"), 34]

    def jobs(self, words: tuple[str, ...], rng: np.random.Generator) -> list[Job]:
        """The transcription and one wording of every question."""
        # a space before every word: one spelling in tokens wherever it stands
        pieces = [self.ids(f" {word}") for word in words]
        numbers = [number for number, piece in enumerate(pieces, 1) for _ in piece]
        target = [token for piece in pieces for token in piece]
        jobs = [Job(self.transcribe, [*target, self.eos], [*numbers, len(words) + 1])]
        for kind, (canonical, others, _) in QUESTIONS.items():
            wording = canonical if rng.random() < 0.6 else str(rng.choice(list(others)))
            target = [*self.ids(f" {answer(kind, list(words))}"), self.eos]
            jobs.append(Job([*self.ids(wording), 4], target, [-100] * len(target)))
        return jobs


class Heads(nn.Module):
    """The auxiliary heads."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.of_audio = nn.ModuleDict(
            {name: nn.Linear(hidden, classes) for name, (_, _, classes) in HEADS.items()}
        )
        self.place = nn.Linear(hidden, PLACES)

    def loss(self, layers: tuple[Tensor, ...], clips: list[Clip]) -> Tensor:
        """Sum of cross entropies over the audio tokens; `layers` hold them without the prompt."""
        total = torch.zeros(())
        for name, (label, layer, _) in HEADS.items():
            wanted = torch.stack([clip.labels[label] for clip in clips]).flatten()
            logits = self.of_audio[name](layers[layer]).flatten(0, 1)
            total = total + functional.cross_entropy(logits, wanted, weight=CLASS_WEIGHTS.get(name))
        return total


def build(encoder: nn.Module) -> nn.Module:
    """The pocket Voxtral with `pocket-m`'s trained encoder inside."""
    from transformers import VoxtralForConditionalGeneration

    from hybridlab.models.weights import voxtral_config

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
    clips = encode_clips(encoder, bank, count=round(TRAINING_CLIPS * scale), seed=seed + 1)
    model, prompts = build(encoder), Prompts(tokenizer)
    heads = Heads(catalog.voxtral("pocket").text.hidden)
    trained = [*(p for p in model.parameters() if p.requires_grad), *heads.parameters()]
    corpus = Corpus(clips, rng)

    def loss_of_next(batches: Iterator[list[Clip]]) -> Tensor:
        return _loss(model, heads, next(batches), prompts, rng)

    model.train()
    thin_steps, full_steps = (max(2, round(steps * scale)) for steps in (THIN_STEPS, FULL_STEPS))
    for label, batches, steps, rate in (
        ("thinned", corpus.thin_batches(thin_steps), thin_steps, THIN_RATE),
        ("full", corpus.full_batches(), full_steps, FULL_RATE),
    ):
        optimise(
            trained,
            partial(loss_of_next, batches),
            label=f"Voxtral on {label} clips",
            steps=steps,
            peak_rate=rate,
            weight_decay=WEIGHT_DECAY,
        )
    return model.eval()


class Corpus:
    """Endless clips: encoded ones as they are, and windows of them joined anew."""

    def __init__(self, clips: dict[int, list[Clip]], rng: np.random.Generator) -> None:
        self.clips, self.rng = clips, rng
        windows = [window for own in clips.values() for clip in own for window in windows_of(clip)]
        self.pool = [window for window in windows if len(window.words) <= MOST_WINDOW_WORDS]

    def clip(self, windows: int) -> Clip:
        """A random clip with so many windows."""
        if windows > 1 and self.rng.random() < JOINED_SHARE:
            return random_join(self.pool, windows, self.rng)
        own = self.clips[windows]
        return own[int(self.rng.integers(0, len(own)))]

    def thin_batches(self, steps: int) -> Iterator[list[Clip]]:
        for step in range(steps):
            lengths = self.rng.choice(list(SHARES), THIN_BATCH, p=list(SHARES.values()))
            batch = [self.clip(int(windows)) for windows in lengths]
            grown = (LAST_SILENCE - FIRST_SILENCE) * (step / steps) ** 2
            yield thinned(batch, self.rng, most_silence=FIRST_SILENCE + round(grown))

    def full_batches(self) -> Iterator[list[Clip]]:
        while True:
            windows = int(self.rng.choice(list(SHARES), p=list(SHARES.values())))
            yield [self.clip(windows) for _ in range(FULL_BATCHES[windows])]


def _loss(
    model: Any, heads: Heads, clips: list[Clip], prompts: Prompts, rng: np.random.Generator
) -> Tensor:
    from transformers import DynamicCache

    core = model.model
    audio = core.multi_modal_projector(torch.stack([clip.tokens for clip in clips]))
    embed = core.get_input_embeddings()
    head = embed(torch.tensor([1, 3, 25])).expand(len(clips), -1, -1)
    prefix = core.language_model(
        inputs_embeds=torch.cat([head, audio], dim=1),
        past_key_values=DynamicCache(),
        use_cache=True,
        output_hidden_states=True,
    )
    heard = heads.loss(tuple(h[:, head.shape[1] :] for h in prefix.hidden_states), clips)
    packed = pack([prompts.jobs(clip.words, rng) for clip in clips], past=3 + audio.shape[1])
    spoken = core.language_model(
        inputs_embeds=embed(packed.tokens),
        past_key_values=prefix.past_key_values,
        position_ids=packed.positions,
        attention_mask=packed.mask,
        use_cache=True,
        output_hidden_states=True,
    )
    wanted, counted = packed.targets >= 0, packed.numbers >= 0
    said = functional.cross_entropy(
        model.lm_head(spoken.last_hidden_state[wanted]), packed.targets[wanted]
    )
    place = functional.cross_entropy(
        heads.place(spoken.hidden_states[PLACE_LAYER][counted]), packed.numbers[counted]
    )
    return said + FRAME_WEIGHT * (heard + place)


@dataclass(frozen=True)
class Packed:
    """All jobs of each clip in one row: `tokens`, `positions`, next-token `targets` and `numbers`
    of their words (-100 where none), each (clips, length), and who may look at what: `mask`,
    (clips, 1, length, past + length)."""

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    numbers: Tensor
    mask: Tensor


def pack(jobs: list[list[Job]], *, past: int) -> Packed:
    """Each job sees the `past` tokens of the prefix and itself, and continues their positions."""
    rows, length = len(jobs), max(sum(map(_inputs, own)) for own in jobs)
    tokens, positions = (torch.zeros(rows, length, dtype=torch.long) for _ in range(2))
    targets, numbers, owner = (torch.full((rows, length), -100) for _ in range(3))
    for row, own in enumerate(jobs):
        start = 0
        for index, job in enumerate(own):
            end, first = start + _inputs(job), start + len(job.prompt) - 1
            tokens[row, start:end] = torch.tensor([*job.prompt, *job.target[:-1]])
            positions[row, start:end] = torch.arange(past, past + end - start)
            targets[row, first:end] = torch.tensor(job.target)
            numbers[row, first:end] = torch.tensor(job.numbers)
            owner[row, start:end] = index
            start = end
    same = owner[:, :, None] == owner[:, None, :]
    mask = same & torch.ones(length, length, dtype=torch.bool).tril()
    seen = torch.ones(rows, length, past, dtype=torch.bool)
    return Packed(tokens, positions, targets, numbers, torch.cat([seen, mask], dim=2)[:, None])


def _inputs(job: Job) -> int:
    """Tokens that a job puts in: its last target is only wanted."""
    return len(job.prompt) + len(job.target) - 1
