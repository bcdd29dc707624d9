"""Repositories in the layout of the released ones, with the small models' weights: what loads read,
and beside it what they do not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from hybridlab.models.pocket import pocket_dir

VOXTRAL, WHISPER = "mistralai/Voxtral-Mini-3B-2507", "openai/whisper-tiny"
LARGE, CT2 = "openai/whisper-large-v3", "Systran/faster-whisper-tiny"
DECOYS = ("pytorch_model.bin", "flax_model.msgpack", "tf_model.h5")
#: Of Whisper's repository, beside its weights.
WHISPER_CONFIGS = (
    *("config.json", "generation_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json"),
)
VOXTRAL_CONFIGS = ("config.json", "generation_config.json", "preprocessor_config.json")


def whisper(folder: Path, saved: Path) -> None:
    """`saved`: a folder of pocket-m in hub format, its tokenizer included."""
    shutil.copytree(saved, folder)
    for name in DECOYS:
        (folder / name).write_bytes(os.urandom(5_000))
    (folder / "README.md").write_text("# whisper")


def large(folder: Path, saved: Path) -> None:
    """With its weights in float32 as well, in shards of another index."""
    whisper(folder, saved)
    tensors = load_file(saved / "model.safetensors")
    small = {name: tensors[name] for name in list(tensors)[:2]}
    for number in (1, 2):
        save_file(small, folder / f"model.fp32-0000{number}-of-00002.safetensors")
    (folder / "model.safetensors.index.fp32.json").write_text("{}")


def voxtral(folder: Path) -> None:
    """In two shards, and once more whole for another library."""
    source = pocket_dir("pocket")
    folder.mkdir(parents=True)
    for name in (*VOXTRAL_CONFIGS, "tekken.json"):
        shutil.copy(source / name, folder)
    tensors = load_file(source / "model.safetensors")
    names, weight_map = sorted(tensors), dict[str, str]()
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index: dict[str, Any] = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({names[0]: tensors[names[0]]}, folder / "consolidated.safetensors")
    (folder / "params.json").write_text("{}")


def converted(folder: Path, saved: Path) -> None:
    """As faster-whisper's repositories are, without the description of the features."""
    from ctranslate2.converters import TransformersConverter

    folder.parent.mkdir(parents=True, exist_ok=True)
    TransformersConverter(str(saved), copy_files=["tokenizer.json"]).convert(str(folder))


def ct2(folder: Path) -> None:
    """A file of CTranslate2's with one tensor: enough for a download, not for a load."""
    folder.mkdir(parents=True)
    head = (6).to_bytes(4, "little") + _string("WhisperSpec") + bytes([3, 0, 0, 0, 1, 0, 0, 0])
    tensor = _string("a") + bytes([1, 4, 0, 0, 0, 0, 16, 0, 0, 0]) + bytes(16)
    (folder / "model.bin").write_bytes(head + tensor)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt", ".gitattributes", "README.md"):
        (folder / name).write_text(f'{{"": "{name}"}}')


def _string(text: str) -> bytes:
    return (len(text) + 1).to_bytes(2, "little") + text.encode() + b"\0"
