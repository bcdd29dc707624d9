"""Bytes of a simulated card against what torch's own counters gave on real ones."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("HYBRIDLAB_SIMULATED_CARD"), reason="a real card is no simulation"
    ),
]

MOST_RELATIVE_ERROR = 0.02

PUBLISHED = Path(__file__).parents[2] / "outputs/reference/public_measurements.csv"
with PUBLISHED.open(newline="") as _file:
    MEASURED_BYTES = {row["id"]: float(row["measured_bytes"]) for row in csv.DictReader(_file)}

START = """
from hybridlab.simulation import values
values.install("sizes")
import torch
from dataclasses import replace
from hybridlab import catalog
from hybridlab.models.weights import empty_weights_on, voxtral_config, whisper_config

def built(kind, config, dtype):
    with empty_weights_on("cuda:0"):
        model = kind._from_config(config, dtype=dtype)
    model.tie_weights()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return model.eval()
"""

VOXTRAL = """
from transformers import VoxtralForConditionalGeneration
config = voxtral_config(catalog.VOXTRALS["mini-3b"])
model = built(VoxtralForConditionalGeneration, config, torch.bfloat16)
print(torch.cuda.memory_allocated())
"""

#: A batch of 24 windows of 30 s, as the pipeline hands it over.
WHISPER = """
from transformers import WhisperForConditionalGeneration
from hybridlab.models.processors import whisper_generation_config
entry = replace(catalog.whisper("turbo"), decoder_layers=DECODER_LAYERS)
model = built(WhisperForConditionalGeneration, whisper_config(entry), torch.float16)
model.generation_config = whisper_generation_config(vocab_size=entry.vocab_size)
features = torch.empty(24, 128, 3000, dtype=torch.float16, device="cuda:0")
model.generate(features, language="en", task="transcribe", max_new_tokens=8)
print(torch.cuda.max_memory_allocated())
"""


def simulated_bytes(code: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", START + code],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("H1", VOXTRAL),
        ("H10", WHISPER.replace("DECODER_LAYERS", "2")),
        ("H11", WHISPER.replace("DECODER_LAYERS", "4")),
    ],
)
def test_allocated_bytes_are_those_of_a_real_card(row: str, code: str) -> None:
    assert simulated_bytes(code) == pytest.approx(MEASURED_BYTES[row], rel=MOST_RELATIVE_ERROR)
