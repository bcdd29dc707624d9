"""Presets as defaults: a notebook's `preset` fills the parameters that its reader left alone.

`auto` is the preset `colab-t4` on a Colab machine with a GPU, so that badge and "Run all" measure
the released weights there, and none anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridlab import colab
from hybridlab.errors import ParameterError

AUTO, NONE = "auto", ""
#: The presets: in a checkout a link to `params/`, in an installed package their copies.
PRESETS_DIR = Path(__file__).parent / "presets"


def presets(folder: Path = PRESETS_DIR) -> list[str]:
    """Names of the presets in a folder; the claims beside them are none."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "claims")


def resolve(preset: str) -> str:
    """The name of the preset to fill from; empty for none."""
    if preset == AUTO:
        return colab.PRESET if colab.on_colab() and colab.has_gpu() else NONE
    if preset != NONE and preset not in presets():
        raise ParameterError.unknown_name("preset", preset, [AUTO, *presets()])
    return preset


def filled(given: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, with the values of its preset under those of `names` that it does not give, and the
    name of the preset where `auto` found one."""
    from hybridlab.params import read_yaml

    wanted = given.get("preset", AUTO)
    if not isinstance(wanted, str):
        return dict(given)  # the model says what is wrong with it
    preset = resolve(wanted)
    if preset == NONE:
        return dict(given)
    values = read_yaml(PRESETS_DIR / f"{preset}.yaml")
    own = {name: value for name, value in values.items() if name in names}
    return {**own, **given, "preset": preset}
