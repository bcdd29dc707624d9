"""Where weights come from: `hub`, `local`, `random`, `pocket`. Safetensors, and no remote code.

Two backends have formats of their own beside: openai-whisper's `load_model` reads its checkpoints,
whose SHA-256 is checked as they are fetched, with torch's weights-only unpickler; faster-whisper
reads CTranslate2's, which are plain arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from hybridlab import catalog
from hybridlab.errors import UnavailableError, WeightsError
from hybridlab.models.base import ModelSpec
from hybridlab.models.checkpoint import (
    descriptions,
    files_of_weights,
    here,
    is_installed,
    is_openai,
    repository_of,
    safetensors_in,
    snapshot,
    sum_in,
)
from hybridlab.models.ctranslate2_folder import WEIGHTS_FILE, is_ctranslate2, whisper_shape
from hybridlab.models.pocket import pocket_dir
from hybridlab.units import MIB

#: Read at a time for a sum over files.
_HASHED_BYTES = 4 * MIB


def check_source(spec: ModelSpec) -> None:
    """Refuse a missing backend and missing or foreign weights before anything is loaded:
    UnavailableError or WeightsError, each with the fix."""
    check_backend(spec)
    if spec.weights == "local":
        _check_folder(Path(spec.path).expanduser(), spec)
    elif spec.weights == "hub":
        here(spec)


def check_backend(spec: ModelSpec) -> None:
    """`UnavailableError` where the library that runs it is not installed."""
    backend = catalog.backend(spec.backend)
    if not is_installed(spec):
        others = " or ".join(name for name, own in catalog.BACKENDS.items() if not own.extra)
        raise UnavailableError(
            f"backend {backend.name} is not installed; pip install 'hybridlab[{backend.extra}]', "
            f"or choose {others}"
        )


def hub_id(model: str) -> str:
    return catalog.model_named(model).hub_id


def folder_of(spec: ModelSpec) -> Path:
    """The folder that a load reads (not of random weights): of the hub's the snapshot of a commit,
    never a name that somebody would have to be asked about. `WeightsError` where it is not here."""
    if spec.weights == "pocket":
        return pocket_dir(spec.model)
    if spec.weights == "local":
        return Path(spec.path).expanduser()
    return here(spec).folder


def weight_files(spec: ModelSpec) -> list[Path]:
    """The files that a load reads this spec's weights from; `UnavailableError` where there are none
    to be read."""
    if spec.weights == "random":
        raise UnavailableError(
            f"random weights of {spec.model} are computed, not read from files; use weights hub, "
            "local or pocket, or the variant reload-cached"
        )
    check_source(spec)
    return files_of_weights(here(spec)) if spec.weights == "hub" else _local_files(spec)


def revision(spec: ModelSpec) -> str | None:
    """What tells these weights from others of their name: the hub's commit, or the SHA-256 of what
    the files hold; of random ones the seed. None where they are not on this disk. `WeightsError`
    for what nobody publishes."""
    if spec.weights == "random":
        return f"seed {spec.seed}"
    if is_openai(spec):
        # a file with another sum than the one in its address is never given its name
        return f"sha256:{sum_in(repository_of(spec))}"
    if spec.weights == "hub":
        folder = snapshot(repository_of(spec), spec.revision)
        return f"commit {folder.name}" if folder is not None else None
    files = _local_files(spec)
    stamps = [(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"sha256:{_sum_of(tuple(stamps))}" if files else None


@cache
def _sum_of(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """One sum over these files in their order; size and time of each are there for the cache."""
    total = hashlib.sha256()
    for path, _, _ in stamps:
        with open(path, "rb") as file:
            while block := file.read(_HASHED_BYTES):
                total.update(block)
    return total.hexdigest()


def _local_files(spec: ModelSpec) -> list[Path]:
    """The files of a folder, shipped or the reader's own, that hold weights."""
    folder = folder_of(spec)
    return [folder / WEIGHTS_FILE] if is_ctranslate2(folder) else safetensors_in(folder)


def _check_folder(folder: Path, spec: ModelSpec) -> None:
    """`WeightsError` where this folder does not hold the spec's model in a format that its backend
    reads: CTranslate2's own, which faster-whisper loads as it is, or the hub's."""
    is_converted = is_ctranslate2(folder)
    seen = _ctranslate2_shape(folder, spec) if is_converted else _hub_shape(folder)
    wanted = shape_of(spec.model)
    if seen != wanted:
        raise WeightsError(
            f"{folder} is not a {spec.model}: it has {seen}, {spec.model} has {wanted}"
        )
    if not is_converted:
        _check_whole(folder, descriptions(spec))


def _check_whole(folder: Path, names: Iterable[str]) -> None:
    if lacking := [name for name in names if not (folder / name).is_file()]:
        raise WeightsError(f"{folder} lacks {', '.join(lacking)}; copy the whole folder")


def shape_of(model: str) -> dict[str, int]:
    """What tells one model from another in the configuration of its weights."""
    known = catalog.model_named(model)
    if isinstance(known, catalog.WhisperModel):
        layers, vocabulary = known.decoder_layers, known.vocab_size
    else:
        layers, vocabulary = known.text.layers, known.text.vocab_size
    return {
        "d_model": known.encoder.d_model,
        "encoder layers": known.encoder.layers,
        "decoder layers": layers,
        "mel bins": known.encoder.mel_bins,
        "vocabulary": vocabulary,
    }


def _ctranslate2_shape(folder: Path, spec: ModelSpec) -> dict[str, int]:
    if catalog.backend(spec.backend).checkpoints != "ctranslate2":
        raise WeightsError(
            f"{folder} is in CTranslate2's format, which only faster-whisper reads; choose "
            "asr_backend faster-whisper, or a folder in hub format"
        )
    return whisper_shape(folder)


def _hub_shape(folder: Path) -> dict[str, int | None]:
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise WeightsError(f"{folder} is not a model folder in hub format (no config.json in it)")
    files = safetensors_in(folder)
    if not files:
        raise WeightsError(
            f"{folder} holds no .safetensors under the names that save_pretrained gives; save it "
            "again with that (pickled weights are never loaded)"
        )
    _check_whole(folder, (file.name for file in files))
    config = json.loads(config_path.read_text(encoding="utf-8"))
    audio, text = config.get("audio_config", config), config.get("text_config", config)
    return {
        "d_model": audio.get("d_model", audio.get("hidden_size")),
        "encoder layers": audio.get("encoder_layers", audio.get("num_hidden_layers")),
        "decoder layers": text.get("decoder_layers", text.get("num_hidden_layers")),
        "mel bins": audio.get("num_mel_bins"),
        "vocabulary": text.get("vocab_size"),
    }
