"""Released checkpoints on this machine: which files a load of a spec needs, where the libraries'
caches have them, and whether they are whole. Nothing here asks the network."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.errors import WeightsError
from hybridlab.models.base import ModelSpec
from hybridlab.models.ctranslate2_folder import WEIGHTS_FILE
from hybridlab.models.whole_files import is_whole, is_whole_pickle
from hybridlab.units import BYTES_PER_DTYPE, format_decimal_bytes

SAFETENSORS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: Without these a folder is no checkpoint: of any model, and beside them of a recogniser and of a
#: language model.
_CONFIGS = ("config.json", "preprocessor_config.json")
_ASR_CONFIGS, _LLM_CONFIGS = ("generation_config.json",), ("tekken.json",)
#: Every repository of a recogniser has one; for a folder without it the same is made.
_ASR_TOKENIZER = "tokenizer.json"
#: What transformers reads beside them where a repository has it.
_OPTIONAL = (
    *("generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "normalizer.json", "vocab.json"),
    *("merges.txt", "chat_template.jinja", "chat_template.json"),
)
#: What faster-whisper reads of a repository, beside one of two vocabularies.
_CT2_CONFIGS, _CT2_OPTIONAL = ("config.json",), ("preprocessor_config.json", "tokenizer.json")
_CT2_VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
#: In which the libraries with formats of their own publish every Whisper.
_PUBLISHED_DTYPE = {"openai": "float16", "ctranslate2": "float16"}


@dataclass(frozen=True)
class Checkpoint:
    """One state of a repository, and the files of it that a load needs."""

    repository: str  #: the hub's name, or the address of openai-whisper's file
    commit: str  #: of openai-whisper's file its SHA-256
    folder: Path
    files: Mapping[str, int]  #: bytes by name

    @property
    def n_bytes(self) -> int:
        return sum(self.files.values())

    def record(self) -> dict[str, Any]:
        """As a run folder keeps it."""
        return {"commit": self.commit, "files": dict(self.files), "bytes": self.n_bytes}


def is_released(spec: ModelSpec) -> bool:
    """Whether its weights are fetched from somewhere."""
    return spec.weights == "hub"


def is_openai(spec: ModelSpec) -> bool:
    """Whether its checkpoint is openai-whisper's own, a file at an address."""
    return is_released(spec) and catalog.backend(spec.backend).checkpoints == "openai"


def is_installed(spec: ModelSpec) -> bool:
    """Whether the library that loads it is here."""
    return find_spec(catalog.backend(spec.backend).module) is not None


def repository_of(spec: ModelSpec) -> str:
    """The hub's name for this spec's checkpoint in the format of its backend, or the address of
    openai-whisper's; `WeightsError` where nobody publishes one."""
    checkpoints = catalog.backend(spec.backend).checkpoints
    if checkpoints == "transformers":
        return catalog.model_named(spec.model).hub_id
    table = _table("faster_whisper.utils" if checkpoints == "ctranslate2" else "whisper")
    if spec.model not in table:
        raise WeightsError(
            f"{spec.backend} publishes no {spec.model}; choose asr_backend transformers, or other "
            "weights: local, random"
        )
    return table[spec.model]


def _table(module: str) -> Mapping[str, str]:
    """Where a library has its own checkpoints, by the names of its models."""
    imported = sys.modules.get(module)
    return imported._MODELS if imported is not None else _read_table(module)


@cache
def _read_table(module: str) -> dict[str, str]:
    """Off the library's source: to import it would bring torch, or CTranslate2, into processes that
    only want to know."""
    package, _, inner = module.partition(".")
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None  # `is_installed` was asked first
    path = Path(spec.origin)
    path = path.with_name(f"{inner}.py") if inner else path
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODELS":
            return dict(ast.literal_eval(node.value))
    raise WeightsError(f"{package} has no table of its checkpoints any more; use another backend")


def estimated_bytes(spec: ModelSpec) -> int:
    """What its weights take as they are published, told without asking: what lies beside them in a
    repository is less than a hundredth."""
    known = catalog.model_named(spec.model)
    checkpoints = catalog.backend(spec.backend).checkpoints
    dtype = _PUBLISHED_DTYPE.get(checkpoints, known.published_dtype)
    return int(known.parameters * BYTES_PER_DTYPE[dtype])


# -------------------------------------------------------------------------------- what is needed


def weight_names(names: Collection[str]) -> list[str]:
    """The files of a folder or repository in hub format that transformers loads weights from, in
    its order of preference: one, or an index and all the shards that their own names count, missing
    ones too; [] where it holds none. Not what lies beside them for other libraries:
    `consolidated`, float32 variants, pickles."""
    if SAFETENSORS in names:
        return [SAFETENSORS]
    counts = {int(found[1]) for name in names if (found := _SHARD.fullmatch(name))}
    if INDEX not in names or len(counts) != 1:
        return []
    (count,) = counts
    return [INDEX, *(f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1))]


def descriptions(spec: ModelSpec) -> list[str]:
    """The files beside the weights of a folder in hub format without which its backend cannot load
    it."""
    if catalog.backend(spec.backend).checkpoints == "openai":
        return ["config.json"]
    return [*_CONFIGS, *(_LLM_CONFIGS if spec.model in catalog.VOXTRALS else _ASR_CONFIGS)]


def needed(spec: ModelSpec, names: Collection[str]) -> list[str]:
    """Of these files of a repository, those that a load of the spec reads; [] where one is missing
    without which it cannot."""
    if catalog.backend(spec.backend).checkpoints == "ctranslate2":
        required, optional = [*_CT2_CONFIGS, WEIGHTS_FILE], [*_CT2_OPTIONAL]
        weights = [name for name in _CT2_VOCABULARIES if name in names][:1]
    else:
        is_llm = spec.model in catalog.VOXTRALS
        required = [*descriptions(spec), *(() if is_llm else (_ASR_TOKENIZER,))]
        weights, optional = weight_names(names), [*_OPTIONAL]
    if not weights or not {*required, *weights} <= set(names):
        return []
    return sorted({*required, *weights, *(name for name in optional if name in names)})


# ------------------------------------------------------------------------------ what is here


def repository_folder(repository: str) -> Path:
    """Where the hub's cache keeps a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name: str = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / name


def is_commit(revision: str) -> bool:
    return _COMMIT.fullmatch(revision) is not None


def snapshot(repository: str, revision: str) -> Path | None:
    """The folder in the hub's cache of this commit, branch or tag ('': main), whatever it holds;
    None where there is none."""
    folder, commit = repository_folder(repository), revision
    if not is_commit(revision):
        ref = folder / "refs" / (revision or "main")
        if not ref.is_file():
            return None
        commit = ref.read_text(encoding="ascii").strip()
    found = folder / "snapshots" / commit
    return found if found.is_dir() else None


def openai_file(url: str) -> Path:
    """Where openai-whisper keeps the checkpoint of this address."""
    cache = Path(os.getenv("XDG_CACHE_HOME", Path.home() / ".cache")) / "whisper"
    return cache / Path(url).name


def sum_in(url: str) -> str:
    """The SHA-256 that stands in an address of openai-whisper's."""
    return Path(url).parent.name


def cached(spec: ModelSpec) -> Checkpoint | None:
    """This spec's checkpoint where all of it is on this machine, each file whole as far as its own
    head tells; None otherwise."""
    repository = repository_of(spec)
    if is_openai(spec):
        file = openai_file(repository)
        if not file.is_file() or not is_whole_pickle(file, sum_in(repository)):
            return None
        sizes = {file.name: file.stat().st_size}
        return Checkpoint(repository, sum_in(repository), file.parent, sizes)
    folder = snapshot(repository, spec.revision)
    if folder is None:
        return None
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    names = needed(spec, files)
    if not names or not all(is_whole(files[name]) for name in names):
        return None
    sizes = {name: files[name].stat().st_size for name in names}
    return Checkpoint(repository, folder.name, folder, sizes)


def here(spec: ModelSpec) -> Checkpoint:
    """As `cached`; `WeightsError` with the command that fetches it where it is not here."""
    found = cached(spec)
    if found is None:
        raise missing(spec)
    return found


def commits_of(checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
    """Of each repository the commit."""
    return {one.repository: one.commit for one in checkpoints}


def pinned(spec: ModelSpec, commits: Mapping[str, str]) -> ModelSpec:
    """This spec at the commit that is named of its repository, if one is."""
    if not is_released(spec) or is_openai(spec) or not is_installed(spec):
        return spec
    return replace(spec, revision=commits.get(repository_of(spec), spec.revision))


def name_of(spec: ModelSpec) -> str:
    """What its checkpoint is called in a line."""
    repository = repository_of(spec)
    return openai_name(repository) if is_openai(spec) else repository


def openai_name(url: str) -> str:
    return f"openai-whisper's {Path(url).name}"


def missing(spec: ModelSpec) -> WeightsError:
    """That this spec's checkpoint is not on this machine, and the command that fetches it."""
    at = f" at revision {spec.revision}" if spec.revision else ""
    size = format_decimal_bytes(estimated_bytes(spec))
    return WeightsError.missing(f"{name_of(spec)}{at}", size)


def safetensors_in(folder: Path) -> list[Path]:
    """The files of a folder in hub format that hold the weights which transformers loads, each
    whether it is there or not; [] where it holds none."""
    names = weight_names({path.name for path in folder.iterdir()} if folder.is_dir() else ())
    return [folder / name for name in names if name != INDEX]


def files_of_weights(checkpoint: Checkpoint) -> list[Path]:
    """Of a checkpoint's files, those that hold weights."""
    names = [name for name in checkpoint.files if name.endswith((".safetensors", ".bin", ".pt"))]
    return [checkpoint.folder / name for name in sorted(names)]
