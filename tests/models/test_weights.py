"""Random weights load as released ones do: the same bytes asked of the allocator."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridlab import catalog
from hybridlab.devices import CpuDevice
from hybridlab.devices.cuda import CudaDevice
from hybridlab.errors import UnavailableError
from hybridlab.models import make_asr, make_llm, whisper_openai
from hybridlab.models.weights import (
    empty_weights_on,
    pretrained,
    random_transformers,
    voxtral_config,
    whisper_config,
)
from hybridlab.processes.worker import Worker
from tests.models.conftest import spec

SAFETENSORS_DTYPES = {torch.float32: "F32", torch.float16: "F16"}


def released_folder(folder: Path, kind: Any, config: Any, dtype: torch.dtype) -> Path:
    """What a hub's folder holds, its file sparse: every tensor once, tied ones left out."""
    with empty_weights_on("meta"):
        model: Any = kind(config)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in model.state_dict().items():
        if name in model.all_tied_weights_keys:
            continue
        start, end = end, end + tensor.numel() * dtype.itemsize
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    config.save_pretrained(folder)
    words = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        file.truncate(8 + len(words) + end)
    return folder


def allocator_after(load: Any, device: CudaDevice) -> dict[str, int]:
    """Bytes that loading took, at its peak and at rest, from an allocator without a cache."""
    device.release()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):  # whose segments no earlier test has filled
        loaded = load()
    segments = [one for one in torch.cuda.memory_snapshot() if one["segment_pool_id"] == pool.id]
    found = {
        "allocated": torch.cuda.memory_allocated() - held,
        "peak": torch.cuda.max_memory_allocated() - held,
        "reserved": sum(one["total_size"] for one in segments),
    }
    del loaded
    device.release()
    return found


def architecture(model: str) -> tuple[Any, Any]:
    """Class and configuration of transformers."""
    import transformers

    if model in catalog.VOXTRALS:
        config = voxtral_config(catalog.voxtral(model))
        return transformers.VoxtralForConditionalGeneration, config
    return transformers.WhisperForConditionalGeneration, whisper_config(catalog.whisper(model))


def taken(model: str, folder: str, *, random: bool) -> dict[str, int]:
    """In a worker, whose allocator nothing has used: bytes that loading takes."""
    (kind, config), device = architecture(model), CudaDevice()
    local = spec(model, weights="local", dtype="float16", path=folder)
    loaded = (
        random_transformers(kind, config, local, device.torch_name)
        if random
        else pretrained(kind, local, device)
    )
    assert next(loaded.parameters()).device.type == "cuda"
    return {
        "allocated": torch.cuda.memory_allocated(),
        "peak": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),  # of segments that threads fill in any order
    }


@pytest.mark.gpu
@pytest.mark.usefixtures("case_server")
@pytest.mark.parametrize("model", ["tiny", "base", "pocket"])
def test_random_transformers_take_what_a_released_file_takes(tmp_path: Path, model: str) -> None:
    folder = released_folder(tmp_path, *architecture(model), torch.float32)
    found = {}
    for random in (True, False):
        with Worker("weights") as worker:
            found[random] = worker.call(taken, model, str(folder), random=random)
        # threads read tensors, so that one may be there twice
        assert found[random].pop("peak") < 1.1 * found[random]["allocated"], "no second copy"
    assert found[True] == found[False]


@pytest.mark.gpu
@pytest.mark.parametrize("load_path", ["direct", "staged"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_random_openai_takes_what_a_released_checkpoint_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str, load_path: str
) -> None:
    device = CudaDevice()
    tiny = spec("tiny", "openai-whisper", weights="random", dtype=dtype, load_path=load_path)
    model: Any = make_asr(tiny, CpuDevice())
    with empty_weights_on("cpu"):
        whole = model._architecture()
    checkpoint = tmp_path / "tiny.pt"
    state = {name: tensor.half() for name, tensor in whole.state_dict().items()}
    torch.save({"dims": vars(whole.dims), "model_state_dict": state}, checkpoint)
    monkeypatch.setattr(whisper_openai, "weight_files", lambda _: [checkpoint])
    model.device = device

    def built(weights: str) -> Any:
        model.spec = replace(tiny, weights=weights)
        return model._build()

    released = allocator_after(partial(built, "hub"), device)
    random = allocator_after(partial(built, "random"), device)
    assert random == released
    twice = dtype == "float32" and load_path == "direct"
    assert released["peak"] > released["allocated"] * (1.4 if twice else 0.99)
    assert twice or released["peak"] == released["allocated"]


def test_a_tied_head_is_one_tensor_and_weights_are_the_same_every_time() -> None:
    from hybridlab.strategies.offload.weight_buffer import weights_digest

    digests = []
    for _ in range(2):
        model: Any = make_asr(spec("tiny", weights="random"), CpuDevice())
        model.load()
        module = model.module()
        assert module.proj_out.weight is module.model.decoder.embed_tokens.weight
        digests.append(weights_digest(module))
    assert digests[0] == digests[1]


def test_random_weights_are_not_quantised() -> None:
    quantised = spec("pocket", weights="random", dtype="int8")
    with pytest.raises(UnavailableError, match="not quantised to int8; choose float16"):
        make_llm(quantised, CpuDevice()).load()
