"""Training of the pocket Whispers: short windows first, then full 30 s ones.

Only some twenty of Whisper's 51,865 tokens are ever used, so training works on a compact
vocabulary whose last entry stands for all unused tokens; export spreads it over their rows. An
auxiliary CTC loss on the encoder, dropped afterwards, makes alignment quick to learn.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.tenants.pocket.speech import DIGITS, Utterance, Word, utterance
from hybridlab.tenants.weights import whisper_config

logger = logging.getLogger(__name__)

PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
END = "<|endoftext|>"
CTC_WEIGHT = 0.4
FRAMES_PER_SECOND = 100
UNUSED_NOISE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training on windows of one length."""

    window_s: float
    most_words: int
    batch: int
    minutes: float
    peak_rate: float


#: Minutes on two cores at about 2.8 GHz.
STAGES = {
    "pocket-m": (
        Stage(window_s=5.0, most_words=5, batch=32, minutes=6.0, peak_rate=3e-3),
        Stage(window_s=12.0, most_words=10, batch=16, minutes=4.0, peak_rate=1.5e-3),
        Stage(window_s=30.0, most_words=10, batch=8, minutes=7.0, peak_rate=1e-3),
    ),
    "pocket-s": (
        Stage(window_s=5.0, most_words=5, batch=32, minutes=2.5, peak_rate=3e-3),
        Stage(window_s=12.0, most_words=10, batch=16, minutes=1.0, peak_rate=1.5e-3),
        Stage(window_s=30.0, most_words=10, batch=8, minutes=2.0, peak_rate=1e-3),
    ),
}


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


def log_mel(batch: list[Samples], frames: int, zero_padded: list[bool]) -> Tensor:
    """(batch, 128, frames): Whisper's features, the rest of each window silent as transformers
    pads it, or zero in the log-mel domain as openai-whisper pads it."""
    from whisper.audio import HOP_LENGTH, N_FFT, mel_filters

    samples = torch.zeros(len(batch), frames * HOP_LENGTH)
    for row, own in zip(samples, batch, strict=True):
        row[: min(own.size, row.numel())] = torch.from_numpy(own[: row.numel()])
    spectrum = torch.stft(
        samples, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), return_complex=True
    )
    mel = (mel_filters("cpu", 128) @ spectrum[..., :-1].abs().square()).clamp(min=1e-10).log10()
    mel = torch.maximum(mel, mel.amax(dim=(1, 2), keepdim=True) - 8.0)
    mel = (mel + 4.0) / 4.0
    for row, own, zero in zip(mel, batch, zero_padded, strict=True):
        if zero:
            row[:, math.ceil(own.size / HOP_LENGTH) :] = 0.0
    return mel


def encode(encoder: nn.Module, mel: Tensor, *, offset: int = 0) -> Tensor:
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
    on_stage: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Train a pocket Whisper; `scale` multiplies the minutes of every stage."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vocabulary = CompactVocabulary()
    model = build(name, vocabulary)
    ctc_head = nn.Linear(catalog.whisper(name).encoder.d_model, len(DIGITS) + 1)
    for stage in STAGES[name]:
        _train_stage(model, ctc_head, stage, bank, rng, vocabulary, scale)
        if on_stage is not None:
            on_stage(model)
    return model.eval()


def _train_stage(
    model: nn.Module,
    ctc_head: nn.Module,
    stage: Stage,
    bank: dict[str, list[Word]],
    rng: np.random.Generator,
    vocabulary: CompactVocabulary,
    scale: float,
) -> None:
    """One stage with a one-cycle learning rate over its minutes."""
    parameters = [*model.parameters(), *ctc_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=stage.peak_rate, weight_decay=0.01)
    seconds, began, step, smooth = stage.minutes * 60 * scale, time.monotonic(), 0, 0.0
    model.train()
    while (share := (time.monotonic() - began) / seconds) < 1.0:
        rate = stage.peak_rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = [
            utterance(bank, rng, most_words=stage.most_words, longest_s=stage.window_s - 0.1)
            for _ in range(stage.batch)
        ]
        loss = _loss(model, ctc_head, batch, stage, rng, vocabulary)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        smooth = loss.item() if step == 0 else 0.95 * smooth + 0.05 * loss.item()
        step += 1
        if step % 50 == 0:
            logger.info("%2.0f s windows, step %d, loss %.4f", stage.window_s, step, smooth)


def _loss(
    model: nn.Module,
    ctc_head: nn.Module,
    batch: list[Utterance],
    stage: Stage,
    rng: np.random.Generator,
    vocabulary: CompactVocabulary,
) -> Tensor:
    frames = round(stage.window_s * FRAMES_PER_SECOND)
    mel = log_mel([u.samples for u in batch], frames, list(rng.random(len(batch)) < 0.5))
    free = catalog.ENCODER_POSITIONS - frames // 2
    # short windows visit all positions, though most audio starts at the first
    offset = int(rng.integers(0, free + 1)) if rng.random() < 0.4 else 0
    hidden = encode(model.model.encoder, mel, offset=offset)
    rows = [torch.tensor(vocabulary.sequence(u.words)) for u in batch]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    inputs = tokens[:, :-1].clamp(min=0)
    decoded = model.model.decoder(input_ids=inputs, encoder_hidden_states=hidden, use_cache=False)
    logits = model.proj_out(decoded.last_hidden_state)
    targets = tokens[:, 1:].clone()
    targets[:, : len(PROMPT) - 1] = -100  # the prompt is given
    cross_entropy = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    return cross_entropy + CTC_WEIGHT * _ctc(ctc_head(hidden), batch)


def _ctc(logits: Tensor, batch: list[Utterance]) -> Tensor:
    targets = torch.tensor([DIGITS.index(word) + 1 for u in batch for word in u.words])
    return functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        targets,
        torch.full((len(batch),), logits.shape[1]),
        torch.tensor([len(u.words) for u in batch]),
        zero_infinity=True,
    )


def export(name: str, compact: nn.Module, vocabulary: CompactVocabulary | None = None) -> nn.Module:
    """The trained model over Whisper's full vocabulary, in float16."""
    from transformers import WhisperForConditionalGeneration

    from hybridlab.tenants.processors import whisper_generation_config

    vocabulary = vocabulary or CompactVocabulary()
    known = catalog.whisper(name)
    full = WhisperForConditionalGeneration(whisper_config(known))
    state = {k: v for k, v in compact.state_dict().items() if k != "proj_out.weight"}
    small = state.pop("model.decoder.embed_tokens.weight")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(known.vocab_size, small.shape[1], generator=generator) * UNUSED_NOISE
    embedding = small[-1] + noise
    embedding[vocabulary.full_ids] = small[:-1]
    state["model.decoder.embed_tokens.weight"] = embedding
    full.load_state_dict(state, strict=False)
    full.tie_weights()
    full.generation_config = whisper_generation_config(vocab_size=known.vocab_size)
    return full.half().eval()
