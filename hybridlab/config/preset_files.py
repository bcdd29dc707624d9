"""Presets as defaults: a notebook's `preset` fills the parameters that its reader left alone.

`auto` is the preset `colab-t4` on a Colab machine with a GPU, so that badge and "Run all" measure
the released weights there, and none anywhere else.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridlab.errors import ParameterError

AUTO, NONE = "auto", ""
#: The value of what a preset leaves for its reader to give.
TO_BE_GIVEN = "???"
#: What `auto` is on a Colab with a GPU.
COLAB_PRESET = "colab-t4"
#: The presets: in a checkout a link to `params/`, in an installed package their copies.
PRESETS_DIR = Path(__file__).parent / "presets"


def presets(folder: Path = PRESETS_DIR) -> list[str]:
    """Names of the presets in a folder; the claims beside them are none."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "claims")


def comment(preset: str, folder: Path = PRESETS_DIR) -> str:
    """What a preset runs, in the words of the comment that opens its file; '' for a name that is
    none."""
    path = folder / f"{preset}.yaml"
    if preset not in presets(folder):
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()
    opening = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ") for line in opening)


def on_colab() -> bool:
    """Whether this process runs in a Colab machine: the same question as the bootstrap cell's."""
    return "COLAB_RELEASE_TAG" in os.environ


def has_gpu() -> bool:
    """Whether the driver knows a GPU. Asked of NVML: torch would take seconds to import."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount()) > 0
    except pynvml.NVMLError:
        return False


def colab_lack() -> str:
    """What a Colab without a GPU misses, in words; '' elsewhere."""
    if not on_colab() or has_gpu():
        return ""
    return (
        "this Colab has no GPU: going on with what the parameters say, on its CPU; Runtime > "
        "Change runtime type > T4 GPU, then Run all, measures the released weights"
    )


def resolve(preset: str) -> str:
    """The name of the preset to fill from; empty for none."""
    if preset == AUTO:
        return COLAB_PRESET if on_colab() and has_gpu() else NONE
    if preset != NONE and preset not in presets():
        raise ParameterError.unknown_name("preset", preset, [AUTO, *presets()])
    return preset


def filled(given: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, with the values of its preset under those of `names` that it does not give, and the
    name of the preset where `auto` found one."""
    wanted = given.get("preset", AUTO)
    if not isinstance(wanted, str):
        return dict(given)  # the model says what is wrong with it
    preset = resolve(wanted)
    if preset == NONE:
        return dict(given)
    values = preset_values(preset)
    own = {name: value for name, value in values.items() if name in names}
    return {**own, **given, "preset": preset}


def preset_values(name: str) -> dict[str, Any]:
    """What a preset of the package sets."""
    return read_yaml(PRESETS_DIR / f"{name}.yaml")


def parameter_file(name: str | Path) -> Path:
    """A file of parameters: a path, or a preset's bare name. `ParameterError` for neither."""
    path = Path(name).expanduser()
    bare = path.stem if path.name == str(name) else ""
    if path.is_file() or not bare:
        return path
    if bare not in presets():
        raise ParameterError.unknown_name("preset", bare, presets())
    return PRESETS_DIR / f"{bare}.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat YAML mapping; nested values and YAML 1.1's `on`/`1e-3` are caught by validation."""
    import yaml

    if not path.is_file():
        raise ParameterError(
            f"parameter file {str(path)!r} does not exist; presets: {', '.join(presets())}"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ParameterError(f"{path} must hold 'name: value' lines, not a {type(values).__name__}")
    return {str(name): value for name, value in values.items()}
