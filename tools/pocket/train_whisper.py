"""Training of the pocket Whispers: short windows first, then full 30 s ones.

Only some twenty of Whisper's 51,865 tokens are ever used, so training works on a compact
vocabulary whose last entry stands for all unused tokens; export spreads it over their rows.

Where each synthetic word begins and ends is known. Two auxiliary heads on the encoder, dropped
afterwards, tell of every frame which digit is being said and as which word of the clip. With the
words numbered like that the decoder finds its alignment in minutes, repeated digits included; with
a CTC loss instead, the same time left a third of the words wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.models.weights import whisper_config
from tools.pocket.optimise import optimise
from tools.pocket.speech import (
    DIGITS,
    MOST_WORDS,
    Utterance,
    Variation,
    Word,
    utterance,
)

PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
END = "<|endoftext|>"
#: What the auxiliary heads tell apart: silence or a digit; silence or the number of the word.
FRAME_DIGITS = len(DIGITS) + 1
FRAME_NUMBERS = MOST_WORDS + 1
FRAME_WEIGHT = 0.5
#: Most frames are silent; they weigh less where words are numbered.
SILENCE_WEIGHT = 0.3
FRAMES_PER_SECOND = 100
SAMPLES_PER_ENCODER_FRAME = 320


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training on windows of one length."""

    window_s: float
    most_words: int
    batch: int
    steps: int
    peak_rate: float


VARIATION = Variation()
#: Most dB by which the two ends of the spectrum are turned up and down against each other.
MOST_TILT_DB = 6.0

#: Steps, not minutes, so that a busy machine trains the same model.
STAGES = {
    "pocket-m": (
        Stage(window_s=5.0, most_words=5, batch=32, steps=1000, peak_rate=3e-3),
        Stage(window_s=12.0, most_words=12, batch=16, steps=800, peak_rate=2e-3),
        Stage(window_s=30.0, most_words=12, batch=8, steps=1500, peak_rate=1.5e-3),
    ),
    "pocket-s": (
        Stage(window_s=5.0, most_words=5, batch=32, steps=450, peak_rate=3e-3),
        Stage(window_s=12.0, most_words=12, batch=16, steps=150, peak_rate=2e-3),
        Stage(window_s=30.0, most_words=12, batch=8, steps=150, peak_rate=1.2e-3),
    ),
}


#: The decoder's last training, on encoder outputs that are computed once.
REFINE_WINDOWS = 5000
REFINE_STEPS = 2500
REFINE_BATCH = 24
REFINE_RATE = 1e-3


class CompactVocabulary:
    """The tokens in use, numbered from 0, and one more number for all the others."""

    def __init__(self) -> None:
        from whisper.tokenizer import get_tokenizer

        tokenizer = get_tokenizer(True)
        self.prompt = [tokenizer.encode(t, allowed_special="all")[0] for t in PROMPT]
        self.end = tokenizer.eot
        self.words = {word: tokenizer.encode(f" {word}") for word in DIGITS}
        pieces = [piece for word in self.words.values() for piece in word]
        self.full_ids = list(dict.fromkeys([*self.prompt, self.end, *pieces]))
        self.number = {token: index for index, token in enumerate(self.full_ids)}
        #: Rows of the full vocabulary behind each number.
        self.multiplicity = torch.ones(len(self))
        self.multiplicity[-1] = tokenizer.encoding.n_vocab - len(self.full_ids)

    def __len__(self) -> int:
        return len(self.full_ids) + 1

    def sequence(self, words: tuple[str, ...]) -> list[int]:
        """Prompt, words, end in compact numbers."""
        pieces = [piece for word in words for piece in self.words[word]]
        return [self.number[token] for token in [*self.prompt, *pieces, self.end]]


def build(name: str, vocabulary: CompactVocabulary) -> nn.Module:
    """The pocket architecture over the compact vocabulary."""
    from transformers import WhisperForConditionalGeneration

    config = whisper_config(replace(catalog.whisper(name), vocab_size=51_865))
    config.vocab_size = len(vocabulary)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = len(vocabulary) - 1
    config.decoder_start_token_id = 0
    model: nn.Module = WhisperForConditionalGeneration(config)
    return model


def log_mel(
    batch: list[Samples],
    frames: int,
    zero_padded: list[bool],
    *,
    tilt_db: NDArray[np.float64] | None = None,
) -> Tensor:
    """(batch, 128, frames): Whisper's features, the rest of each window silent as transformers
    pads it, or zero in the log-mel domain as openai-whisper pads it. `tilt_db` turns the highest
    band of each clip up by so much against the lowest, as another microphone would."""
    from whisper.audio import HOP_LENGTH, N_FFT, mel_filters

    samples = torch.zeros(len(batch), frames * HOP_LENGTH)
    for row, own in zip(samples, batch, strict=True):
        row[: min(own.size, row.numel())] = torch.from_numpy(own[: row.numel()])
    spectrum = torch.stft(
        samples, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), return_complex=True
    )
    mel = (mel_filters("cpu", 128) @ spectrum[..., :-1].abs().square()).clamp(min=1e-10).log10()
    if tilt_db is not None:
        bands = torch.linspace(-0.5, 0.5, mel.shape[1])
        mel = mel + torch.from_numpy(tilt_db).float()[:, None, None] * bands[:, None] / 10
    mel = torch.maximum(mel, mel.amax(dim=(1, 2), keepdim=True) - 8.0)
    mel = (mel + 4.0) / 4.0
    for row, own, zero in zip(mel, batch, zero_padded, strict=True):
        if zero:
            row[:, math.ceil(own.size / HOP_LENGTH) :] = 0.0
    return mel


def encode(encoder: Any, mel: Tensor, *, offset: int = 0) -> Tensor:
    """(batch, frames / 2, d): the encoder on a window of any length, at positions from `offset`
    (transformers' own forward insists on 30 s)."""
    hidden = functional.gelu(encoder.conv1(mel))
    hidden = functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[offset : offset + hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    normed: Tensor = encoder.layer_norm(hidden)
    return normed


def train_whisper(
    name: str,
    bank: dict[str, list[Word]],
    *,
    seed: int = 0,
    scale: float = 1.0,
) -> nn.Module:
    """Train a pocket Whisper; `scale` multiplies the steps of every stage."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vocabulary = CompactVocabulary()
    model = build(name, vocabulary)
    frame_head = nn.Linear(catalog.whisper(name).encoder.d_model, FRAME_DIGITS + FRAME_NUMBERS)
    student = Student(model, frame_head, vocabulary)
    for full in STAGES[name]:
        _train_stage(student, replace(full, steps=max(2, round(full.steps * scale))), bank, rng)
    if name == "pocket-m":
        refine_decoder(student, bank, rng, steps=max(2, round(REFINE_STEPS * scale)))
    return model.eval()


def refine_decoder(
    student: Student,
    bank: dict[str, list[Word]],
    rng: np.random.Generator,
    *,
    steps: int = REFINE_STEPS,
    windows: int = REFINE_WINDOWS,
) -> None:
    """Last, train the decoder alone on full windows whose encoder outputs are computed once: a
    step then costs a tenth, and the encoder stays what Voxtral shares."""
    clips = [
        utterance(bank, rng, most_words=MOST_WORDS, longest_s=29.9, variation=VARIATION)
        for _ in range(windows)
    ]
    encoded = _encode_all(student.model, clips, rng)

    def next_loss() -> Tensor:
        chosen = rng.integers(0, windows, REFINE_BATCH)
        hidden = torch.stack([encoded[i].float() for i in chosen])
        return _said_loss(student, hidden, [clips[i] for i in chosen])

    student.model.train()
    parameters = student.model.model.decoder.parameters()
    optimise(parameters, next_loss, label="decoder alone", steps=steps, peak_rate=REFINE_RATE)


@torch.no_grad()
def _encode_all(model: Any, clips: list[Utterance], rng: np.random.Generator) -> list[Tensor]:
    """Each clip's window through the encoder, half of them padded in the mel domain; float16."""
    encoded = []
    for start in range(0, len(clips), 8):
        batch = [clip.samples for clip in clips[start : start + 8]]
        mel = log_mel(batch, catalog.MEL_FRAMES_PER_WINDOW, list(rng.random(len(batch)) < 0.5))
        encoded += list(encode(model.model.encoder, mel).half().unbind())
    return encoded


@dataclass(frozen=True)
class Student:
    """What is trained: the model, the heads that are dropped, and the tokens they speak."""

    model: Any
    frame_head: nn.Module
    vocabulary: CompactVocabulary


def _train_stage(
    student: Student, stage: Stage, bank: dict[str, list[Word]], rng: np.random.Generator
) -> None:
    """One stage: every batch is spoken anew."""

    def next_loss() -> Tensor:
        batch = [
            utterance(
                bank,
                rng,
                most_words=stage.most_words,
                longest_s=stage.window_s - 0.1,
                variation=VARIATION,
            )
            for _ in range(stage.batch)
        ]
        return _loss(student, batch, stage, rng)

    student.model.train()
    parameters = [*student.model.parameters(), *student.frame_head.parameters()]
    label = f"{stage.window_s:2.0f} s windows"
    optimise(parameters, next_loss, label=label, steps=stage.steps, peak_rate=stage.peak_rate)


def _loss(
    student: Student, batch: list[Utterance], stage: Stage, rng: np.random.Generator
) -> Tensor:
    model = student.model
    frames = round(stage.window_s * FRAMES_PER_SECOND)
    tilt_db = rng.uniform(-MOST_TILT_DB, MOST_TILT_DB, len(batch))
    zero_padded = list(rng.random(len(batch)) < 0.5)
    mel = log_mel([u.samples for u in batch], frames, zero_padded, tilt_db=tilt_db)
    free = catalog.ENCODER_POSITIONS - frames // 2
    # short windows visit all positions, though most audio starts at the first
    offset = int(rng.integers(0, free + 1)) if rng.random() < 0.3 else 0
    hidden = encode(model.model.encoder, mel, offset=offset)
    said = _said_loss(student, hidden, batch)
    return said + FRAME_WEIGHT * _frame_loss(student.frame_head(hidden), batch)


def _said_loss(student: Student, hidden: Tensor, batch: list[Utterance]) -> Tensor:
    """Cross entropy of the words given the encoder's output (batch, positions, d)."""
    model, vocabulary = student.model, student.vocabulary
    rows = [torch.tensor(vocabulary.sequence(u.words)) for u in batch]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    inputs = tokens[:, :-1].clamp(min=0)
    decoded = model.model.decoder(input_ids=inputs, encoder_hidden_states=hidden, use_cache=False)
    logits = model.proj_out(decoded.last_hidden_state)
    # the last entry stands for many rows of the full vocabulary, and weighs as much
    logits = logits + vocabulary.multiplicity.log()
    # the prompt is learnt too, so that language detection says English
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def _frame_loss(logits: Tensor, batch: list[Utterance]) -> Tensor:
    """Cross entropy of digit and word number of every encoder frame."""
    digits, numbers = frame_labels(batch, logits.shape[1])
    weight = torch.ones(FRAME_NUMBERS)
    weight[0] = SILENCE_WEIGHT
    digit_logits, number_logits = logits[..., :FRAME_DIGITS], logits[..., FRAME_DIGITS:]
    return functional.cross_entropy(
        digit_logits.flatten(0, 1), digits.flatten()
    ) + functional.cross_entropy(number_logits.flatten(0, 1), numbers.flatten(), weight=weight)


def frame_labels(batch: list[Utterance], frames: int) -> tuple[Tensor, Tensor]:
    """Digit plus 1 and number of the word of each encoder frame, 0 in silence: (batch, frames)."""
    digits = torch.zeros(len(batch), frames, dtype=torch.long)
    numbers = torch.zeros_like(digits)
    for row, clip in enumerate(batch):
        for number, (word, (start, end)) in enumerate(zip(clip.words, clip.spans, strict=True), 1):
            own = slice(start // SAMPLES_PER_ENCODER_FRAME, end // SAMPLES_PER_ENCODER_FRAME + 1)
            digits[row, own] = DIGITS.index(word) + 1
            numbers[row, own] = number
    return digits, numbers


def export(name: str, compact: nn.Module, vocabulary: CompactVocabulary | None = None) -> nn.Module:
    """The trained model over Whisper's full vocabulary, in float16."""
    from transformers import WhisperForConditionalGeneration

    from hybridlab.models.processors import whisper_generation_config

    vocabulary = vocabulary or CompactVocabulary()
    known = catalog.whisper(name)
    full = WhisperForConditionalGeneration(whisper_config(known))
    state = {k: v for k, v in compact.state_dict().items() if k != "proj_out.weight"}
    small = state.pop("model.decoder.embed_tokens.weight")
    # equal rows: never the largest logit, and the file compresses to a tenth in git and in a wheel
    embedding = small[-1].repeat(known.vocab_size, 1)
    embedding[vocabulary.full_ids] = small[:-1]
    state["model.decoder.embed_tokens.weight"] = embedding
    full.load_state_dict(state, strict=False)
    full.tie_weights()
    full.generation_config = whisper_generation_config(vocab_size=known.vocab_size)
    exported: nn.Module = full.half().eval()
    return exported
