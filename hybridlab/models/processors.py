"""Tokenizers, feature extractors and generation settings of both models, built without a hub.

openai-whisper ships Whisper's byte-pair ranks, mistral-common ships Tekken's: both become the
processors that transformers would download. Nothing heavy is imported until it is called.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
import operator
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlab import catalog

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, VoxtralProcessor, WhisperProcessor, WhisperTokenizer

#: A window's first timestamp is at most the first second, in steps of 0.02 s.
MOST_INITIAL_TIMESTAMP = 50
TEKKEN_CONTROL_TOKENS = 1000
TEKKEN_FILE = "tekken_240911.json"
#: Those of Voxtral's control tokens that older models lack, by rank (its tekken.json).
VOXTRAL_SPECIALS = {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]"}


@functools.cache
def _whisper_ranks(*, multilingual: bool) -> dict[bytes, int]:
    import whisper

    name = "multilingual" if multilingual else "gpt2"
    path = Path(whisper.__file__).parent / "assets" / f"{name}.tiktoken"
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _last_pair(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that byte-pair encoding leaves of `token` before its very last merge."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [parts[i] + parts[i + 1] for i in range(len(parts) - 1)]
        best = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], len(ranks)))
        parts[best : best + 2] = [pairs[best]]
    return parts[0], parts[1]


@functools.cache
def whisper_processor(*, vocab_size: int, num_mel_bins: int) -> WhisperProcessor:
    """Whisper's processor; its ids equal openai-whisper's."""
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    features = WhisperFeatureExtractor(feature_size=num_mel_bins)
    return WhisperProcessor(features, whisper_tokenizer(vocab_size))


def whisper_tokenizer(vocab_size: int) -> WhisperTokenizer:
    """The tokenizer of `whisper_processor`."""
    from transformers import AddedToken, WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    ranks = _whisper_ranks(multilingual=catalog.is_multilingual(vocab_size))
    # the 50,000 merges of the released merges.txt: the pair whose joining made each token
    joined = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    pairs = [_last_pair(token, ranks) for token in joined]
    tokenizer = WhisperTokenizer(
        vocab={text(token): rank for token, rank in ranks.items()},
        merges=[(text(left), text(right)) for left, right in pairs],
    )
    ids = _special_ids(vocab_size)
    first_time = ids["<|0.00|>"]
    tokenizer.add_tokens(
        [AddedToken(t, special=i < first_time, normalized=False) for t, i in ids.items()]
    )
    tokenizer.pad_token = tokenizer.eos_token = "<|endoftext|>"
    # the constructor set its prefix while the control tokens were still unknown to it
    tokenizer.set_prefix_tokens()
    return tokenizer


def load_whisper_processor(folder: Path, model: catalog.WhisperModel) -> WhisperProcessor:
    """The processor of a folder; one without a tokenizer gets openai-whisper's."""
    from transformers import WhisperProcessor

    if not (folder / "tokenizer.json").is_file():
        return whisper_processor(vocab_size=model.vocab_size, num_mel_bins=model.encoder.mel_bins)
    processor: WhisperProcessor = WhisperProcessor.from_pretrained(folder)
    return processor


def openai_tokenizer(vocab_size: int, *, language: str = "en", task: str = "transcribe") -> Any:
    """The tokenizer that openai-whisper decodes this language with; it keeps it, by these
    arguments."""
    from whisper.tokenizer import get_tokenizer

    multilingual = catalog.is_multilingual(vocab_size)
    languages = vocab_size - catalog.WHISPER_NO_LANGUAGE_TOKENS if multilingual else 99
    tokenizer = get_tokenizer(multilingual, num_languages=languages, language=language, task=task)
    assert tokenizer.non_speech_tokens  # found once, and kept
    return tokenizer


def _special_ids(vocab_size: int) -> dict[str, int]:
    """Special tokens and times in the order of their ids: 99 languages in 51,864 words and in
    51,865, 100 in 51,866."""
    ids = openai_tokenizer(vocab_size).special_tokens
    return dict(sorted(ids.items(), key=operator.itemgetter(1)))


@functools.cache
def suppressed(vocab_size: int) -> tuple[int, ...]:
    """What the released models never say: openai-whisper's non-speech tokens and task tokens."""
    tokenizer = openai_tokenizer(vocab_size)
    tasks = (tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev)
    own = {*tokenizer.non_speech_tokens, *tasks, tokenizer.sot_lm, tokenizer.no_speech}
    return tuple(sorted(own))


def whisper_generation_config(*, vocab_size: int) -> GenerationConfig:
    """Everything that `generate` asks of a Whisper, with `language=` of a multilingual one."""
    from transformers import GenerationConfig

    ids = _special_ids(vocab_size)
    config = GenerationConfig(
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        max_length=catalog.WHISPER_MAX_TARGET_POSITIONS,
        suppress_tokens=list(suppressed(vocab_size)),
        begin_suppress_tokens=[220, ids["<|endoftext|>"]],
    )
    config.is_multilingual = catalog.is_multilingual(vocab_size)
    if config.is_multilingual:
        tasks = {name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")}
        languages = range(ids["<|en|>"], tasks["translate"])
        config.lang_to_id = {token: i for token, i in ids.items() if i in languages}
        config.task_to_id = tasks
    config.no_timestamps_token_id = ids["<|notimestamps|>"]
    config.prev_sot_token_id = ids["<|startofprev|>"]
    config.max_initial_timestamp_index = MOST_INITIAL_TIMESTAMP
    config.return_timestamps = False
    return config


def alignment_heads(model: catalog.WhisperModel) -> list[tuple[int, int]]:
    """Layer and head of the decoder's cross-attention that follows the words: as openai-whisper has
    them for its releases, else all of the later half of the layers, as it has for others."""
    import numpy as np
    from whisper import _ALIGNMENT_HEADS

    layers, heads = model.decoder_layers, model.encoder.heads
    if (dump := _ALIGNMENT_HEADS.get(model.name)) is None:
        mask = np.repeat(np.arange(layers) >= layers // 2, heads)
    else:
        mask = np.frombuffer(gzip.decompress(base64.b85decode(dump)), dtype=bool)
    return [(n // heads, n % heads) for n in np.flatnonzero(mask).tolist()]


def hf_to_openai_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names of a Whisper's tensors as openai-whisper's.

    The tied head is left out, and so are the encoder's positions, which openai-whisper computes
    (transformers stores the same sinusoids).
    """
    parts = (
        ("model.", ""),
        ("layers.", "blocks."),
        ("encoder_attn_layer_norm", "cross_attn_ln"),
        ("self_attn_layer_norm", "attn_ln"),
        ("final_layer_norm", "mlp_ln"),
        ("encoder_attn", "cross_attn"),
        ("self_attn", "attn"),
        ("q_proj", "query"),
        ("k_proj", "key"),
        ("v_proj", "value"),
        ("out_proj", "out"),
        ("fc1", "mlp.0"),
        ("fc2", "mlp.2"),
        ("embed_positions.weight", "positional_embedding"),
        ("embed_tokens", "token_embedding"),
        ("encoder.layer_norm", "encoder.ln_post"),
        ("decoder.layer_norm", "decoder.ln"),
    )
    renamed = {}
    for name, tensor in state.items():
        if name in ("proj_out.weight", "model.encoder.embed_positions.weight"):
            continue
        ours = name
        for old, new in parts:
            ours = ours.replace(old, new)
        renamed[ours] = tensor
    return renamed


# --------------------------------------------------------------------------------------- Voxtral


def write_tekken(path: Path, *, vocab_size: int = 131_072) -> None:
    """Voxtral's tekken.json from the one that mistral-common ships; a smaller `vocab_size` keeps
    the first ranks. Of the shipped 150,000 entries only those in use are written."""
    import mistral_common
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    specials = {one["rank"]: one["token_str"] for one in Tekkenizer.DEPRECATED_SPECIAL_TOKENS}
    specials |= VOXTRAL_SPECIALS
    source = Path(mistral_common.__file__).parent / "data" / TEKKEN_FILE
    data: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    data.pop("image", None)
    kept = vocab_size - TEKKEN_CONTROL_TOKENS
    data["vocab"] = data["vocab"][:kept]
    data["config"] |= {
        "version": "v7",
        "default_vocab_size": vocab_size,
        "num_vocab_tokens": kept,
    }
    data["special_tokens"] = [
        {
            "rank": rank,
            "token_str": specials.get(rank, f"<SPECIAL_{rank}>"),
            "is_control": True,
        }
        for rank in range(35)
    ]
    data["audio"] = {
        "sampling_rate": catalog.SAMPLE_RATE_HZ,
        "frame_rate": 12.5,
        "chunk_length_s": catalog.WINDOW_S,
        "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
    }
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


@functools.cache
def voxtral_processor(
    *, vocab_size: int = 131_072, cache_dir: Path | None = None
) -> VoxtralProcessor:
    """Voxtral's processor over its own tokenizer, or over the first `vocab_size` ranks of it.

    Its `save_pretrained` copies the tekken.json it was made from: give a `cache_dir` to keep one.
    """
    from transformers import VoxtralProcessor, WhisperFeatureExtractor
    from transformers.tokenization_mistral_common import MistralCommonBackend

    with tempfile.TemporaryDirectory(prefix="hybridlab-") as folder:
        path = (cache_dir or Path(folder)) / "tekken.json"
        write_tekken(path, vocab_size=vocab_size)
        tokenizer = MistralCommonBackend(tokenizer_path=str(path))
    return VoxtralProcessor(WhisperFeatureExtractor(feature_size=128), tokenizer)
