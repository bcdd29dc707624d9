"""What weights take: at rest, while they load, and on the host on their way to the device."""

from __future__ import annotations

from hybridlab import catalog
from hybridlab.catalog import LoadPath, VoxtralModel, WhisperModel
from hybridlab.units import BYTES_PER_DTYPE

#: bitsandbytes' 4-bit keeps one float32 scale per block of 64 values (its `quantize_4bit`).
INT4_BLOCK = 64


def whisper_weights_bytes(model: WhisperModel, *, backend: str, dtype: str) -> int:
    """Bytes that the backend keeps on the device for this Whisper, buffers included.

    openai-whisper holds the encoder's positions as a buffer instead of a parameter, so the sum is
    the same; beside it stands the decoder's float32 mask (448 x 448), and its float16 keeps
    LayerNorms in float32 (whisper/model.py). int8 (CTranslate2) shrinks matrices only and adds one
    float32 scale per output row (CTranslate2's quantization notes).
    """
    known = catalog.backend(backend)
    known.check_dtype(dtype)
    d, encoder_layers = model.encoder.d_model, model.encoder.layers
    if dtype == "int8":
        rest = model.parameters - model.matrix_parameters
        # output rows of all linear layers: 4 projections and fc1 (4 d), fc2 (d) per encoder layer
        scales = model.vocab_size + d * (9 * encoder_layers + 13 * model.decoder_layers)
        return int(model.matrix_parameters + 2 * rest + 4 * scales)
    n_bytes = model.parameters * BYTES_PER_DTYPE[dtype]
    if known.openai_buffers:
        n_bytes += catalog.WHISPER_MAX_TARGET_POSITIONS**2 * BYTES_PER_DTYPE[dtype]
        if dtype == "float16":
            n_bytes += 2 * d * (4 * encoder_layers + 6 * model.decoder_layers + 4)
    return int(n_bytes)


def voxtral_weights_bytes(model: VoxtralModel, *, dtype: str) -> int:
    """Bytes of Voxtral's weights.

    int8 and int4 are bitsandbytes': the linear layers of the text model are quantised (int8: one
    float32 scale per output row; int4: one per block of 64 values). All else stays in float16:
    `QUANTISER_SKIPS` names encoder, projector and head, as published quantised Voxtrals do.
    """
    if dtype not in ("int8", "int4"):
        return int(model.parameters * BYTES_PER_DTYPE[dtype])
    rest = 2 * (model.parameters - model.matrix_parameters)
    if dtype == "int8":
        return int(model.matrix_parameters + rest + 4 * _voxtral_rows(model))
    return int(model.matrix_parameters * (0.5 + 4 / INT4_BLOCK) + rest)


def _voxtral_rows(model: VoxtralModel) -> int:
    """Output rows of the layers that a quantiser replaces."""
    text = model.text
    attention = text.head_dim * (text.heads + 2 * text.kv_heads) + text.hidden
    layer = attention + 2 * text.ffn + text.hidden
    return text.layers * layer


def whisper_load_peak_bytes(
    model: WhisperModel, *, backend: str, dtype: str, path: LoadPath = "direct"
) -> int:
    """Device bytes at the worst moment of loading this Whisper.

    openai-whisper's `load_model(device="cuda")` keeps the float16 checkpoint on the GPU while the
    float32 model moves there (whisper/__init__.py); `load_model(device="cpu")` and then `.to()`
    avoids the double copy, and so does the cast to float16 on the host. The other backends write
    straight to their place.
    """
    kept = whisper_weights_bytes(model, backend=backend, dtype=dtype)
    if catalog.backend(backend).float32_build and dtype == "float32" and path == "direct":
        return kept + 2 * model.parameters
    return kept


def whisper_host_bytes(
    model: WhisperModel, *, backend: str, dtype: str, path: LoadPath = "direct"
) -> int:
    """Host memory that loading takes for itself, page cache apart.

    openai-whisper builds the float32 model on the host whatever the device, beside the float16
    checkpoint unless that goes to the GPU; CTranslate2 reads the whole file; transformers maps
    safetensors into the page cache and copies from there.
    """
    known = catalog.backend(backend)
    if known.float32_build:
        checkpoint = 0 if path == "direct" and dtype == "float32" else 2 * model.parameters
        return 4 * model.parameters + checkpoint
    kept = whisper_weights_bytes(model, backend=backend, dtype=dtype)
    return kept if path == "staged" or known.reads_whole_file else 0


def voxtral_host_bytes(model: VoxtralModel, *, dtype: str, path: LoadPath = "direct") -> int:
    """Host memory of loading Voxtral: nothing straight to the device, a whole copy when staged."""
    return voxtral_weights_bytes(model, dtype=dtype) if path == "staged" else 0
