"""Pocket models: true architectures in miniature whose text is real, shipped with the package."""

from __future__ import annotations

from pathlib import Path

from hybridlab.errors import ParameterError

WEIGHTS_DIR = Path(__file__).parent / "weights"
NAMES = ("pocket-s", "pocket-m", "pocket")


def pocket_dir(name: str) -> Path:
    """The hub-format folder of a pocket model."""
    if name not in NAMES:
        raise ParameterError.unknown_name("pocket model", name, NAMES)
    return WEIGHTS_DIR / name
