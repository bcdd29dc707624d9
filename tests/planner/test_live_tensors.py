"""The planner's request terms against the true architectures, traced tensor by tensor."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    VoxtralForConditionalGeneration,
    WhisperForConditionalGeneration,
)

from hybridlab import catalog, planner
from hybridlab.devices import CpuDevice
from hybridlab.models.base import ModelSpec
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.models.weights import voxtral_config, whisper_config
from hybridlab.models.whisper_openai import WhisperOpenai
from hybridlab.models.whisper_transformers import WhisperTransformers
from hybridlab.planner.activations import encoder_bytes, features_bytes
from hybridlab.profiling.live_tensors import LiveTensors

L4 = catalog.card("l4")
MINI = catalog.voxtral("mini-3b")


def on_meta(kind: Any, config: Any) -> Any:
    with torch.device("meta"):
        return kind._from_config(config, dtype=torch.float16).eval()


@pytest.fixture(scope="module")
def voxtral() -> Any:
    return on_meta(VoxtralForConditionalGeneration, voxtral_config(MINI))


@cache
def whisper(size: str) -> Any:
    return on_meta(WhisperForConditionalGeneration, whisper_config(catalog.whisper(size)))


@pytest.fixture(scope="module")
def tiny() -> WhisperOpenai:
    """In float32 on this host."""
    spec = ModelSpec(model="tiny", backend="openai-whisper", weights="random", dtype="float32")
    recognizer = WhisperOpenai(spec, CpuDevice())
    recognizer.load()
    return recognizer


@pytest.mark.parametrize("windows", [1, 10])
def test_voxtral_encoder(voxtral: Any, windows: int) -> None:
    features = torch.empty(windows, 128, 3000, dtype=torch.float16, device="meta")
    with torch.inference_mode(), LiveTensors() as live:
        voxtral.get_audio_features(features)
    predicted = encoder_bytes(MINI.encoder, rows=windows, width=2, backend="transformers")
    assert live.peak_bytes == pytest.approx(predicted.expected, rel=0.01)


@pytest.mark.parametrize("windows", [1, 10])
def test_voxtral_prefill(voxtral: Any, windows: int) -> None:
    """The text model alone; its caller holds the merged embeddings, the audio's and the features,
    which `voxtral_phases` counts as two of five hidden tensors and `features`."""
    request = planner.Request(audio_s=30.0 * windows, prompt_tokens=8)
    length = 375 * windows + 8
    embeddings = torch.empty(1, length, 3072, dtype=torch.float16, device="meta")
    cache = DynamicCache(config=voxtral.config.text_config)
    with torch.inference_mode(), LiveTensors() as live:
        voxtral.model.language_model(
            inputs_embeds=embeddings, past_key_values=cache, use_cache=True
        )
    held = 2 * embeddings.nbytes + windows * 128 * 3000 * 2 + 6 * MINI.text.vocab_size
    phases = planner.voxtral_phases(MINI, request, dtype="float16", card=L4)
    assert live.peak_bytes + held == pytest.approx(phases["prefill"].expected, rel=0.02)
    grown = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert grown == planner.voxtral_kv_bytes(MINI, tokens=length, width=2)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("size", ["base", "large-v3"])
def test_whisper_of_transformers(size: str, rows: int) -> None:
    known = catalog.whisper(size)
    model = whisper(size)
    features = torch.empty(rows, known.encoder.mel_bins, 3000, dtype=torch.float16, device="meta")
    with torch.inference_mode(), LiveTensors() as encoding:
        encoded = model.model.encoder(features)[0]
    request = planner.Request(batch=rows, new_tokens=1)
    phases = planner.whisper_phases(
        known, request, backend="transformers", dtype="float16", card=L4
    )
    held = features_bytes(rows, known.encoder.mel_bins, width=2, backend="transformers")
    peak = encoding.peak_bytes + held
    assert peak == pytest.approx(phases["encode"].expected, rel=0.01)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    ids = torch.empty(rows, 4, dtype=torch.long, device="meta")
    with torch.inference_mode(), LiveTensors() as decoding:
        decoded = model.model.decoder(
            input_ids=ids, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True
        )
        model.proj_out(decoded.last_hidden_state[:, -1:])
    peak = decoding.peak_bytes + encoded.nbytes + held
    assert peak == pytest.approx(phases["decode"].expected, rel=0.02)


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_the_beams_of_one_window_share_its_keys_and_values(size: str) -> None:
    """What Whisper is unsure of costs a window again, not five times its audio."""
    spec = ModelSpec(model=size, backend="transformers", weights="random", dtype="float32")
    recognizer = WhisperTransformers(spec, CpuDevice())
    recognizer.load()
    options = TranscribeOptions(max_new_tokens=64, beams=catalog.UNSURE_BEAMS, language="en")
    with torch.inference_mode():
        encoded = recognizer._encode([np.zeros(30 * catalog.SAMPLE_RATE_HZ, np.float32)])
        with LiveTensors() as live:
            recognizer._decode(encoded, [0], ["en"], options, ends=None)
    predicted = planner.whisper_phases(
        catalog.whisper(size),
        planner.Request(new_tokens=64),
        backend="transformers",
        dtype="float32",
        card=catalog.HOST,
    )["decode"]
    features = catalog.whisper(size).encoder.mel_bins * catalog.MEL_FRAMES_PER_WINDOW * 4
    peak = live.peak_bytes + encoded.last_hidden_state.nbytes + features
    assert predicted.expected < peak <= predicted.high
    assert peak == pytest.approx(predicted.high, rel=0.05)


def test_whisper_of_openai_casts_as_it_goes(tiny: WhisperOpenai) -> None:
    """Float32 weights and float16 activations, as `fp16=True` runs it on a GPU."""
    model: Any = tiny.module()
    features = torch.zeros(1, 80, 3000, dtype=torch.float16)
    with torch.inference_mode(), LiveTensors() as encoding:
        encoded = model.encoder(features)
    cache, hooks = model.install_kv_cache_hooks()
    with torch.inference_mode(), LiveTensors() as decoding:
        logits = model.decoder(torch.zeros(1, 4, dtype=torch.long), encoded, kv_cache=cache)
    for hook in hooks:
        hook.remove()
    phases = planner.whisper_phases(
        catalog.whisper("tiny"),
        planner.Request(new_tokens=1),
        backend="openai-whisper",
        dtype="float32",
        card=L4,
    )
    held = features_bytes(1, 80, width=2, backend="openai-whisper")
    peak = encoding.peak_bytes + held
    assert phases["encode"].low * 0.97 <= peak <= phases["encode"].high * 1.03
    # all four positions of the prompt get logits here, one each while generating
    peak = decoding.peak_bytes + encoded.nbytes + held - logits.nbytes * 3 // 4
    assert peak == pytest.approx(phases["decode"].expected, rel=0.02)


@pytest.mark.parametrize("rows", [1, 4])
def test_whisper_of_openai_encodes_window_by_window_on_a_host(
    rows: int, tiny: WhisperOpenai
) -> None:
    windows = [np.zeros(30 * catalog.SAMPLE_RATE_HZ, np.float32)] * rows
    with torch.inference_mode(), LiveTensors() as encoding:
        assert tiny._encode(windows).heard.shape == (rows, 1500, 384)
    phases = planner.whisper_phases(
        catalog.whisper("tiny"),
        planner.Request(batch=rows),
        backend="openai-whisper",
        dtype="float32",
        card=catalog.HOST,
    )
    assert encoding.peak_bytes == pytest.approx(phases["encode"].expected, rel=0.01)


def test_math_kernel_builds_two_score_matrices() -> None:
    """In float32 on the CPU, where the low end of the range is what the allocator sees at least."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads, length = 4, 512
    query, key, value = (torch.randn(1, heads, length, 64) for _ in range(3))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), LiveTensors() as live:
        torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    scores = heads * length**2
    assert 8 * scores <= live.peak_bytes <= 13 * scores
