"""Where weights come from: `hub`, `local`, `random`, `pocket`. Safetensors, and no remote code.

Two backends have formats of their own beside: openai-whisper's `load_model` reads its checkpoints
with torch's weights-only unpickler after checking their SHA-256, and faster-whisper reads
CTranslate2's, which are plain arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hybridlab import catalog
from hybridlab.errors import UnavailableError, WeightsError
from hybridlab.models.base import ModelSpec
from hybridlab.models.ctranslate2_folder import WEIGHTS_FILE, is_ctranslate2, whisper_shape
from hybridlab.models.hub import HUB_TIMEOUT_S, check_hub
from hybridlab.models.pocket import pocket_dir
from hybridlab.units import MIB

#: Read at a time for a sum over files.
_HASHED_BYTES = 4 * MIB


def check_source(spec: ModelSpec) -> None:
    """Refuse a missing backend and missing or foreign weights before anything is loaded:
    UnavailableError or WeightsError, each with the fix."""
    backend = catalog.backend(spec.backend)
    if find_spec(backend.module) is None:
        others = " or ".join(name for name, own in catalog.BACKENDS.items() if not own.extra)
        raise UnavailableError(
            f"backend {backend.name} is not installed; pip install 'hybridlab[{backend.extra}]', "
            f"or choose {others}"
        )
    if spec.weights == "local":
        _check_folder(Path(spec.path).expanduser(), spec)
    elif spec.weights == "hub" and backend.checkpoints == "openai":
        _check_openai_cache(_published(spec))
    elif spec.weights == "hub":
        check_hub(_repository(spec))


def hub_id(model: str) -> str:
    return catalog.model_named(model).hub_id


def _repository(spec: ModelSpec) -> str:
    """The hub's name for this spec's checkpoint, in the format of its backend."""
    if catalog.backend(spec.backend).checkpoints == "ctranslate2":
        return _published(spec)
    return hub_id(spec.model)


def _published(spec: ModelSpec) -> str:
    """What the backend's library calls the address of its own checkpoint of this model;
    `WeightsError` where it publishes none."""
    if catalog.backend(spec.backend).checkpoints == "ctranslate2":
        from faster_whisper.utils import _MODELS
    else:
        from whisper import _MODELS
    if spec.model not in _MODELS:
        raise WeightsError(
            f"{spec.backend} publishes no {spec.model}; choose asr_backend transformers, or other "
            "weights: local, random"
        )
    return str(_MODELS[spec.model])


def folder_or_id(spec: ModelSpec) -> str:
    """What `from_pretrained` takes for this spec (not for random weights)."""
    if spec.weights == "pocket":
        return str(pocket_dir(spec.model))
    if spec.weights == "local":
        return str(Path(spec.path).expanduser())
    return hub_id(spec.model)


def weight_files(spec: ModelSpec) -> list[Path]:
    """The files that hold this spec's weights; `UnavailableError` where there are none on a disk
    to be read."""
    if spec.weights == "random":
        raise UnavailableError(
            f"random weights of {spec.model} are computed, not read from files; use weights hub, "
            "local or pocket, or the variant reload-cached"
        )
    check_source(spec)
    if spec.weights == "hub":
        openai = catalog.backend(spec.backend).checkpoints == "openai"
        files = [_openai_file(_published(spec))] if openai else _hub_files(spec)
    else:
        files = _local_files(spec)
    if not files or not all(file.is_file() for file in files):
        raise UnavailableError(
            f"the {spec.weights} weights of {spec.model} are not on this disk yet; run once with "
            "the variant reload-cached, which fetches them"
        )
    return files


def _hub_files(spec: ModelSpec) -> list[Path]:
    """What the hub's cache holds of it."""
    converted = catalog.backend(spec.backend).checkpoints == "ctranslate2"
    pattern = "model.bin" if converted else "*.safetensors"
    snapshot = _snapshot(spec)
    return sorted(snapshot.glob(pattern)) if snapshot is not None else []


def _snapshot(spec: ModelSpec) -> Path | None:
    """The folder of the hub's cache with this spec's configuration, named by its commit; None where
    nothing is cached."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(_repository(spec), "config.json")
    return Path(config).parent if isinstance(config, str) else None


def revision(spec: ModelSpec) -> str | None:
    """What tells these weights from others of their name: the hub's commit, or the SHA-256 of what
    the files hold; of random ones the seed. None where they are not on this disk. `WeightsError`
    for what nobody publishes."""
    if spec.weights == "random":
        return f"seed {spec.seed}"
    if spec.weights == "hub" and catalog.backend(spec.backend).checkpoints == "openai":
        # the library refuses a file with another sum than the one in its address
        return f"sha256:{Path(_published(spec)).parent.name}"
    if spec.weights == "hub":
        snapshot = _snapshot(spec)
        return f"commit {snapshot.name}" if snapshot is not None else None
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
    folder = Path(folder_or_id(spec))
    if is_ctranslate2(folder):
        return [folder / WEIGHTS_FILE]
    return sorted(folder.glob("*.safetensors"))


def _check_folder(folder: Path, spec: ModelSpec) -> None:
    """`WeightsError` where this folder does not hold the spec's model in a format that its backend
    reads: CTranslate2's own, which faster-whisper loads as it is, or the hub's."""
    seen = _ctranslate2_shape(folder, spec) if is_ctranslate2(folder) else _hub_shape(folder)
    wanted = shape_of(spec.model)
    if seen != wanted:
        raise WeightsError(
            f"{folder} is not a {spec.model}: it has {seen}, {spec.model} has {wanted}"
        )


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
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} holds no .safetensors; save it again with save_pretrained (pickled weights "
            "are never loaded)"
        )
    config = json.loads(config_path.read_text(encoding="utf-8"))
    audio, text = config.get("audio_config", config), config.get("text_config", config)
    return {
        "d_model": audio.get("d_model", audio.get("hidden_size")),
        "encoder layers": audio.get("encoder_layers", audio.get("num_hidden_layers")),
        "decoder layers": text.get("decoder_layers", text.get("num_hidden_layers")),
        "mel bins": audio.get("num_mel_bins"),
        "vocabulary": text.get("vocab_size"),
    }


def _openai_file(url: str) -> Path:
    """Where openai-whisper keeps the checkpoint of this address."""
    cache = Path(os.getenv("XDG_CACHE_HOME", Path.home() / ".cache")) / "whisper"
    return cache / Path(url).name


def _check_openai_cache(url: str) -> None:
    import socket
    from urllib.parse import urlparse

    file = _openai_file(url)
    if file.is_file():
        return
    try:
        socket.create_connection((str(urlparse(url).hostname), 443), timeout=HUB_TIMEOUT_S).close()
    except OSError as error:
        raise WeightsError(
            f"openai-whisper's {file.name} is not in {file.parent} and its server did not answer "
            f"({error}); run once while online, or use weights 'local', 'random' or 'pocket'"
        ) from None
