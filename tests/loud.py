"""A Voxtral whose numbers overflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hybridlab.models.pocket import pocket_dir

#: Every weight of the head, and no logit, is still a number of this dtype's.
FACTORS = {"float16": 20_000.0, "float32": 1e38}


def loud_voxtral(folder: Path, dtype: str = "float16") -> Path:
    """The pocket Voxtral in this new folder, with a head that says the same so much louder that it
    overflows in this dtype."""
    shutil.copytree(pocket_dir("pocket"), folder)
    weights = load_file(folder / "model.safetensors")
    (head,) = (name for name in weights if name.endswith("lm_head.weight"))
    weights[head] = weights[head].float() * FACTORS[dtype]
    assert weights[head].abs().max() < torch.finfo(getattr(torch, dtype)).max
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
