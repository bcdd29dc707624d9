"""Weights into models: from safetensors, or random ones of the true architecture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from json import JSONDecodeError
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from hybridlab import catalog
from hybridlab.devices import Device
from hybridlab.errors import UnavailableError, WeightsError
from hybridlab.models.base import ModelSpec
from hybridlab.models.source import folder_of

#: Random weights repeat one seeded block of this many values (a prime, so that rows differ).
RANDOM_BLOCK_VALUES = 1_048_573
RANDOM_STD = 0.02
#: What libraries say of files that are damaged in a `RuntimeError`, which is also what they raise
#: for anything else.
UNREADABLE = ("PytorchStreamReader", "is incomplete", "failed to read", "Unsupported model binary")


def torch_dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def computing_dtype(name: str) -> torch.dtype:
    """What activations are kept in: quantised weights compute in float16."""
    return torch.float16 if name in ("int8", "int4") else torch_dtype(name)


# ----------------------------------------------------------------------------------- transformers


@contextmanager
def one_line_errors(spec: ModelSpec) -> Iterator[None]:
    """Turn a library's many-line complaint about files into a WeightsError."""
    from safetensors import SafetensorError

    damaged = (SafetensorError, UnpicklingError, EOFError, JSONDecodeError, UnicodeDecodeError)
    try:
        yield
    except (OSError, *damaged) as error:
        raise _unreadable(spec, error) from error
    except RuntimeError as error:  # torch's and CTranslate2's for a file that is damaged
        if not any(words in str(error) for words in UNREADABLE):
            raise
        raise _unreadable(spec, error) from error


def _unreadable(spec: ModelSpec, error: Exception) -> WeightsError:
    said = " ".join(str(error).split())[:200]
    cure = "copy the folder again"
    if spec.weights == "hub":
        cure = "`hybridlab fetch PRESET --verify` fetches what is damaged again"
    return WeightsError(
        f"{spec.weights} weights of {spec.model} in {folder_of(spec)} cannot be loaded "
        f"({type(error).__name__}: {said}); {cure}"
    )


def pretrained(kind: Any, spec: ModelSpec, device: Device) -> nn.Module:
    """`kind.from_pretrained` straight to the device: dtype always set, safetensors only."""
    options: dict[str, Any] = {"use_safetensors": True, "device_map": {"": device.torch_name}}
    options["dtype"] = computing_dtype(spec.dtype)
    if spec.dtype in ("int8", "int4"):
        options["quantization_config"] = _bitsandbytes(spec.dtype, device)
    with one_line_errors(spec):
        model: nn.Module = kind.from_pretrained(folder_of(spec), **options)
    return model.eval()


#: Modules that stay in 16 bit: what is heard suffers first from fewer bits, and the head always
#: stays. Published quantised Voxtrals that kept their accuracy leave the same ones alone.
QUANTISER_SKIPS = ["model.audio_tower", "model.multi_modal_projector", "lm_head"]


def _bitsandbytes(dtype: str, device: Device) -> Any:
    if find_spec("bitsandbytes") is None or device.capability is None:
        raise UnavailableError(
            f"{dtype} weights need a CUDA device and bitsandbytes; pip install 'hybridlab[quant]', "
            "or choose float16"
        )
    from transformers import BitsAndBytesConfig

    if dtype == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=QUANTISER_SKIPS)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=torch.float16,
        llm_int8_skip_modules=QUANTISER_SKIPS,  # of both widths, whatever its name says
    )


def whisper_config(model: catalog.WhisperModel) -> Any:
    """The released architecture as a transformers configuration, without a hub."""
    from transformers import WhisperConfig

    from hybridlab.models.processors import whisper_generation_config

    ids = whisper_generation_config(vocab_size=model.vocab_size)
    encoder = model.encoder
    return WhisperConfig(
        vocab_size=model.vocab_size,
        num_mel_bins=encoder.mel_bins,
        d_model=encoder.d_model,
        encoder_layers=encoder.layers,
        encoder_attention_heads=encoder.heads,
        encoder_ffn_dim=encoder.ffn,
        decoder_layers=model.decoder_layers,
        decoder_attention_heads=encoder.heads,
        decoder_ffn_dim=encoder.ffn,
        bos_token_id=ids.bos_token_id,
        eos_token_id=ids.eos_token_id,
        pad_token_id=ids.pad_token_id,
        decoder_start_token_id=ids.decoder_start_token_id,
    )


def voxtral_config(model: catalog.VoxtralModel) -> Any:
    """The architecture as a transformers configuration."""
    from transformers import VoxtralConfig

    encoder, text = model.encoder, model.text
    return VoxtralConfig(
        audio_token_id=24,
        audio_config={
            "hidden_size": encoder.d_model,
            "intermediate_size": encoder.ffn,
            "num_hidden_layers": encoder.layers,
            "num_attention_heads": encoder.heads,
            "num_mel_bins": encoder.mel_bins,
            "max_source_positions": encoder.positions,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": text.hidden,
            "intermediate_size": text.ffn,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "head_dim": text.head_dim,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": text.rope_theta},
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
        },
        hidden_size=text.hidden,
    )


# ----------------------------------------------------------------------------------------- random


@contextmanager
def empty_weights_on(device: str) -> Iterator[None]:
    """Build modules with uninitialised parameters on `device` and their buffers as they should be
    (a meta device followed by `to_empty` would lose non-persistent buffers)."""
    from transformers.initialization import no_init_weights

    with no_init_weights(), torch.device(device):
        yield


def random_transformers(kind: Any, config: Any, spec: ModelSpec, device: str) -> nn.Module:
    """True architecture, seeded values, brought to `device` by `from_pretrained` itself: what the
    allocator is asked for, and in which order, is that of a released file."""
    if spec.dtype in ("int8", "int4"):
        raise UnavailableError(
            f"random weights are not quantised to {spec.dtype}; choose float16, or weights hub or "
            "local"
        )
    dtype = torch_dtype(spec.dtype)
    model: Any = kind.from_pretrained(
        None,
        config=config,
        state_dict=_unwritten(kind, config, dtype, device),
        device_map={"": device},
        dtype=dtype,
    )
    fill_random(model, seed=spec.seed)
    built: nn.Module = model.eval()
    return built


@dataclass(frozen=True)
class _Unwritten:
    """One tensor of a file that does not exist: memory for it appears on the device when
    `from_pretrained` reads it, as it takes a slice of a safetensors file."""

    shape: torch.Size
    dtype: torch.dtype
    device: str

    def __getitem__(self, _: object) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device=self.device)


def _unwritten(kind: Any, config: Any, dtype: torch.dtype, device: str) -> dict[str, _Unwritten]:
    """What a released file of this architecture holds: every tensor once, tied ones left out."""
    with empty_weights_on("meta"):
        model: Any = kind(config)
    return {
        name: _Unwritten(tensor.shape, dtype, device)
        for name, tensor in model.state_dict().items()
        if name not in model.all_tied_weights_keys
    }


@torch.no_grad()
def fill_random(model: nn.Module, *, seed: int) -> None:
    """Write every page of every parameter with seeded values of standard deviation 0.02; norms
    become identities and biases zero, so that activations stay finite.

    One block is repeated: drawing 4.7 G values takes most of a minute, copying them a tenth. It is
    repeated from the first parameter that holds all of it, so that a device keeps no block beside
    the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(RANDOM_BLOCK_VALUES, generator=generator) * RANDOM_STD
    blocks: dict[tuple[torch.device, torch.dtype], Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        flat, key = parameter.view(-1), (parameter.device, parameter.dtype)
        first = flat[:RANDOM_BLOCK_VALUES]
        first.copy_(blocks.get(key, drawn)[: first.numel()])
        if first.numel() == RANDOM_BLOCK_VALUES:
            _repeat_into(flat[RANDOM_BLOCK_VALUES:], blocks.setdefault(key, first))


def _repeat_into(flat: Tensor, block: Tensor) -> None:
    """In one copy: one for each block takes twice as long."""
    whole = flat.numel() // block.numel()
    if whole:
        flat[: whole * block.numel()].view(whole, -1).copy_(block.expand(whole, -1))
    rest = flat.numel() - whole * block.numel()
    if rest:
        flat[-rest:].copy_(block[:rest])
