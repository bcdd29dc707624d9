"""Make the pocket models and the shipped clips: `python -m tools.pocket.train`.

Needs espeak-ng. Measured: `pocket-m` 28 minutes on two cores, `pocket-s` 7 and `pocket` 48 on one.
Every figure in a model card is measured here.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hybridlab import catalog
from hybridlab.audio import CLIPS_DIR
from hybridlab.models.pocket import NAMES, WEIGHTS_DIR
from hybridlab.models.processors import voxtral_processor, whisper_processor, write_tekken
from tools.pocket.evaluate import (
    evaluate_voxtral,
    evaluate_whisper,
    held_out_clips,
    is_long,
)
from tools.pocket.speech import (
    HELD_OUT_VOICES,
    QUESTIONS,
    TRAINING_VOICES,
    Utterance,
    Word,
    answer,
    long_utterance,
    utterance,
    word_bank,
)
from tools.pocket.train_voxtral import train_voxtral
from tools.pocket.train_whisper import export, train_whisper

logger = logging.getLogger(__name__)

EVALUATION_CLIPS = 240
#: Shipped clips: (how many, shortest, longest) in seconds.
SHIPPED = ((5, 0.0, 8.0), (5, 0.0, 22.0), (3, 31.0, 42.0), (1, 61.0, 66.0))

CARD = """\
# {title}

{what} The architecture is {architecture}'s in miniature: {parameters:,} parameters, float16.

**For:** showing and testing hybridlab's strategies, text and all, on any machine in seconds.
**Not for:** transcribing people. It was trained on one speech synthesiser (espeak-ng) saying
English digits, one to twelve a clip, and knows nothing else. It gives no timestamps, and it always
says at least one word, so a window of silence alone gets a made-up one.

## Measured on held-out voices
{figures}

Training heard {training} synthetic voices; the figures are from {held_out} others, on clips drawn
by seed. It took {minutes:.0f} minutes on {cores} with
`python -m tools.pocket.train --only {name} --seed {seed}`.
"""


def save_whisper(name: str, compact: nn.Module, folder: Path) -> None:
    """A hub-format folder: model, generation settings, feature extractor. The tokenizer, 6 MB that
    openai-whisper brings along anyway, is not repeated: `load_whisper_processor` builds it."""
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = export(name, compact)
    model.save_pretrained(folder)
    known = catalog.whisper(name)
    whisper_processor(
        vocab_size=known.vocab_size, num_mel_bins=known.encoder.mel_bins
    ).feature_extractor.save_pretrained(folder)


def save_voxtral(model: Any, folder: Path) -> None:
    """A hub-format folder with the tokenizer as `tekken.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    vocabulary = catalog.voxtral("pocket").text.vocab_size
    voxtral_processor(vocab_size=vocabulary).feature_extractor.save_pretrained(folder)
    write_tekken(folder / "tekken.json", vocab_size=vocabulary)


def ship_clips(bank: dict[str, list[Word]], folder: Path, *, seed: int = 7) -> None:
    """Clips from held-out voices, drawn by seed and not by whether a model gets them right."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines: list[str] = []
    for count, shortest, longest in SHIPPED:
        for _ in range(count):
            if shortest:
                clip = long_utterance(bank, rng, shortest_s=shortest, longest_s=longest)
            else:
                clip = utterance(bank, rng, longest_s=longest)
            name = f"clip-{len(lines) + 1:02d}"
            soundfile.write(folder / f"{name}.flac", clip.samples, 16_000, subtype="PCM_16")
            lines.append(json.dumps(_manifest_row(name, clip)))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _manifest_row(name: str, clip: Utterance) -> dict[str, Any]:
    return {
        "id": name,
        "path": f"{name}.flac",
        "text": clip.text,
        "duration_s": round(clip.samples.size / 16_000, 3),
        "voice": clip.voice,
        "questions": [
            {"question": wording, "answer": answer(kind, list(clip.words)), "kind": kind}
            for kind, (wording, _, _) in QUESTIONS.items()
        ],
    }


def write_card(folder: Path, name: str, figures: dict[str, Any], minutes: float, seed: int) -> None:
    """README.md and metrics.json from what was just measured."""
    voxtral = name == "pocket"
    known = catalog.voxtral(name) if voxtral else catalog.whisper(name)
    lines = _lines(figures)
    cores = len(os.sched_getaffinity(0))
    text = CARD.format(
        title=f"{'Voxtral' if voxtral else 'Whisper'} {name}",
        what="Transcribes spoken digits and answers questions about them."
        if voxtral
        else "Transcribes spoken digits.",
        architecture="Voxtral" if voxtral else "Whisper",
        parameters=known.parameters,
        figures="\n".join(lines),
        training=len(TRAINING_VOICES),
        held_out=len(HELD_OUT_VOICES),
        minutes=minutes,
        cores="1 core" if cores == 1 else f"{cores} cores",
        name=name,
        seed=seed,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    metrics = {
        "figures": figures,
        "minutes": round(minutes, 1),
        "cores": cores,
        "seed": seed,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def _lines(figures: dict[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for name, value in figures.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            lines += _lines(value, f"{label}: ")
        elif "clips" in name:
            lines.append(f"- {label}: {value}")
        else:
            lines.append(f"- {label}: {100 * value:.2f} %")
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS_DIR)
    parser.add_argument("--clips", type=Path, default=CLIPS_DIR)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full training")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="make these")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    bank = word_bank(TRAINING_VOICES)
    held_out = word_bank(HELD_OUT_VOICES)
    ship_clips(held_out, options.clips)
    count = max(8, round(EVALUATION_CLIPS * min(1.0, options.scale)))
    clips = held_out_clips(held_out, count=count)
    logger.info("%d evaluation clips, %d of them long", count, sum(map(is_long, clips)))
    for name in catalog.POCKET_SIZES[::-1]:
        if name in options.only:
            began = time.monotonic()
            compact = train_whisper(name, bank, seed=options.seed, scale=options.scale)
            finish_whisper(name, compact, options, clips, began)
    if "pocket" in options.only:
        began = time.monotonic()
        model = _train_voxtral(options.out / "pocket-m", bank, options.seed, options.scale)
        finish_voxtral(model, options, clips, began)


def _train_voxtral(
    whisper: Path, bank: dict[str, list[Word]], seed: int, scale: float
) -> nn.Module:
    """On the encoder of the saved `pocket-m`, rounded to float16 as it ships."""
    from transformers import WhisperForConditionalGeneration

    saved: Any = WhisperForConditionalGeneration.from_pretrained(whisper, dtype=torch.float32)
    vocabulary = catalog.voxtral("pocket").text.vocab_size
    tokenizer = voxtral_processor(vocab_size=vocabulary).tokenizer
    return train_voxtral(saved.model.encoder.eval(), bank, tokenizer, seed=seed, scale=scale)


def finish_whisper(
    name: str, compact: nn.Module, options: argparse.Namespace, clips: list[Utterance], began: float
) -> None:
    """Save, measure, write the card; `began` is when its training did."""
    minutes = (time.monotonic() - began) / 60
    folder = options.out / name
    save_whisper(name, compact, folder)
    figures: dict[str, Any] = evaluate_whisper(folder, name, clips)
    logger.info("%s: %s", name, figures)
    write_card(folder, name, figures, minutes, options.seed)


def finish_voxtral(
    model: Any, options: argparse.Namespace, clips: list[Utterance], began: float
) -> None:
    """Save, measure, write the card; `began` is when its training did."""
    minutes = (time.monotonic() - began) / 60
    folder = options.out / "pocket"
    save_voxtral(model, folder)
    figures = evaluate_voxtral(folder, clips)
    logger.info("pocket: %s", figures)
    write_card(folder, "pocket", figures, minutes, options.seed)


if __name__ == "__main__":
    main()
