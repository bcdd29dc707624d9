"""Dimensions of the models, from their released configurations.

Parameter counts follow from them and are proved against the real architectures on the meta device
in `tests/catalog/test_catalog.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hybridlab.catalog.constants import (
    ENCODER_POSITIONS,
    WHISPER_ENGLISH_TOKENS,
    WHISPER_MAX_TARGET_POSITIONS,
    WHISPER_NO_LANGUAGE_TOKENS,
)
from hybridlab.catalog.languages import LANGUAGE_NAMES, LANGUAGES, whisper_language
from hybridlab.catalog.registry import Registry
from hybridlab.errors import ParameterError


def is_multilingual(vocab_size: int) -> bool:
    """Whether a Whisper of so many tokens is asked for a language and a task. English-only ones
    have those tokens too, and were never taught them."""
    return vocab_size > WHISPER_ENGLISH_TOKENS


@dataclass(frozen=True, kw_only=True)
class AudioEncoder:
    """Whisper's encoder, which Voxtral shares in shape: two convolutions and a transformer."""

    d_model: int
    layers: int
    heads: int
    mel_bins: int
    positions: int = ENCODER_POSITIONS

    @property
    def ffn(self) -> int:
        return 4 * self.d_model

    @property
    def parameters(self) -> int:
        d = self.d_model
        convolutions = self.mel_bins * d * 3 + d + d * d * 3 + d
        # k has no bias; two LayerNorms; fc1 and fc2 with biases
        layer = (4 * d * d + 3 * d) + 4 * d + (8 * d * d + 5 * d)
        return convolutions + self.positions * d + self.layers * layer + 2 * d


@dataclass(frozen=True, kw_only=True)
class WhisperModel:
    """One Whisper size; `parameters` counts as transformers does (tied head once)."""

    name: str
    encoder: AudioEncoder
    decoder_layers: int
    vocab_size: int
    hub_id: str = ""
    #: In which its weights are published in the hub's format (their `config.json` and file sizes).
    published_dtype: str = "float32"
    #: Weights come with the package, as the source `pocket`, and from nowhere else but a folder.
    shipped: bool = False
    #: One of the sizes that tables and presets have by default.
    compared: bool = True
    #: As `WER_SOURCE` and `SPEED_SOURCE` have them: words wrong of words said, and how many times
    #: as fast as large. None where nothing is published.
    published_wer: float | None = None
    relative_speed: float | None = None
    #: It was taught to transcribe alone (the model cards of turbo and of the distilled one).
    transcribes_only: bool = False

    @property
    def multilingual(self) -> bool:
        return is_multilingual(self.vocab_size)

    @property
    def translates(self) -> bool:
        """Whether it writes in English what is said in another language."""
        return self.multilingual and not self.transcribes_only

    @property
    def languages(self) -> list[str]:
        """Whisper's codes of what it can be asked for."""
        count = self.vocab_size - WHISPER_NO_LANGUAGE_TOKENS if self.multilingual else 1
        return list(LANGUAGE_NAMES)[:count]

    @property
    def decoder_parameters(self) -> int:
        d = self.encoder.d_model
        layer = 2 * (4 * d * d + 3 * d) + 6 * d + (8 * d * d + 5 * d)
        embeddings = (self.vocab_size + WHISPER_MAX_TARGET_POSITIONS) * d
        return embeddings + self.decoder_layers * layer + 2 * d

    @property
    def parameters(self) -> int:
        return self.encoder.parameters + self.decoder_parameters

    @property
    def matrix_parameters(self) -> int:
        """Weights of linear layers and the embedding: what int8 quantisation shrinks."""
        d, encoder = self.encoder.d_model, self.encoder
        return (12 * encoder.layers + 16 * self.decoder_layers) * d * d + self.vocab_size * d

    @property
    def cross_kv_values(self) -> int:
        """Elements of the cross-attention cache per beam: K and V of every decoder layer."""
        return 2 * self.decoder_layers * self.encoder.positions * self.encoder.d_model

    @property
    def self_kv_values_per_token(self) -> int:
        return 2 * self.decoder_layers * self.encoder.d_model


@dataclass(frozen=True, kw_only=True)
class LlamaText:
    """Voxtral's text model (Llama with grouped-query attention)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab_size: int
    rope_theta: float = 1e8

    @property
    def parameters(self) -> int:
        """Without the head, which is untied and counted by the whole model."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        layer = attention + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.vocab_size * self.hidden + self.layers * layer + self.hidden

    @property
    def kv_values_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class VoxtralModel:
    """Whisper encoder, projector that folds four positions into one token, Llama."""

    name: str
    encoder: AudioEncoder
    text: LlamaText
    hub_id: str = ""
    #: In which its weights are published.
    published_dtype: str = "bfloat16"
    shipped: bool = False

    @property
    def languages(self) -> list[str]:
        """Whisper's codes of what it can be asked for: mistral-common takes ISO 639-1 alone."""
        return LANGUAGES

    @property
    def projector_parameters(self) -> int:
        return self.encoder.ffn * self.text.hidden + self.text.hidden**2

    @property
    def head_parameters(self) -> int:
        return self.text.vocab_size * self.text.hidden

    @property
    def parameters(self) -> int:
        return (
            self.encoder.parameters
            + self.projector_parameters
            + self.text.parameters
            + self.head_parameters
        )

    @property
    def matrix_parameters(self) -> int:
        """Weights of the linear layers that a quantiser replaces: the text model's. Encoder,
        projector, embeddings and head stay."""
        text = self.text
        attention = text.hidden * text.head_dim * (2 * text.heads + 2 * text.kv_heads)
        return text.layers * (attention + 3 * text.hidden * text.ffn)


def whisper_of(
    name: str,
    d_model: int,
    encoder_layers: int,
    decoder_layers: int,
    heads: int,
    *,
    mel_bins: int = 80,
    vocab_size: int = 51_865,
    **facts: Any,
) -> WhisperModel:
    """A Whisper by the numbers of its configuration."""
    encoder = AudioEncoder(d_model=d_model, layers=encoder_layers, heads=heads, mel_bins=mel_bins)
    return WhisperModel(
        name=name,
        encoder=encoder,
        decoder_layers=decoder_layers,
        vocab_size=vocab_size,
        **facts,
    )


_LARGE: dict[str, Any] = {"mel_bins": 128, "vocab_size": 51_866, "published_dtype": "float16"}
_TURBO: dict[str, Any] = {**_LARGE, "transcribes_only": True}
_OTHER: dict[str, Any] = {"compared": False}
_POCKET: dict[str, Any] = {"mel_bins": 128, "shipped": True}

#: The public leaderboard's table of short English audio, `scripts/data/en_shortform.csv` at commit
#: 090df12 of huggingface/open_asr_leaderboard: the mean of 8 test sets. It has no multilingual
#: model below large, so that tiny to medium stand with their English-only siblings, which OpenAI's
#: README calls better, most of all at tiny and base. The multilingual ones come in the same order,
#: large-v3 and turbo on a par, in the model cards of efficient-speech/lite-whisper (ESB).
WER_SOURCE = "Open ASR Leaderboard, short English audio; tiny.en to medium.en for tiny to medium"
#: The table of models in OpenAI's README: English speech on an A100.
SPEED_SOURCE = "openai/whisper's README, times large on an A100"


def _released(hub_name: str, wer_percent: float, speed: float) -> dict[str, Any]:
    wer = wer_percent / 100
    return {"hub_id": f"openai/whisper-{hub_name}", "published_wer": wer, "relative_speed": speed}


def _english_only(model: WhisperModel) -> WhisperModel:
    """The released model for English alone of the same size. The published word error rate is its
    own (`WER_SOURCE`), and OpenAI's README gives both the same speed."""
    return replace(
        model,
        name=f"{model.name}{ENGLISH_SUFFIX}",
        vocab_size=WHISPER_ENGLISH_TOKENS,
        hub_id=f"{model.hub_id}{ENGLISH_SUFFIX}",
        compared=False,
    )


#: Ends the names of models for English alone.
ENGLISH_SUFFIX = ".en"

_SMALL = [
    whisper_of("tiny", 384, 4, 4, 6, **_released("tiny", 12.81, 10)),
    whisper_of("base", 512, 6, 6, 8, **_released("base", 10.32, 7)),
    whisper_of("small", 768, 12, 12, 12, **_released("small", 8.59, 4)),
    whisper_of("medium", 1024, 24, 24, 16, **_released("medium", 8.09, 2)),
]

#: Released sizes from small to large, turbo (large-v3 with a small decoder) after them, then others
#: that public measurements are about, those for English alone, and those that ship with the
#: package.
WHISPERS: Registry[WhisperModel] = Registry(
    "asr_model",
    [
        *_SMALL,
        whisper_of("large-v3", 1280, 32, 32, 20, **_LARGE, **_released("large-v3", 7.44, 1)),
        whisper_of("turbo", 1280, 32, 4, 20, **_TURBO, **_released("large-v3-turbo", 7.83, 8)),
        whisper_of("large-v2", 1280, 32, 32, 20, **_OTHER, hub_id="openai/whisper-large-v2"),
        whisper_of(
            *("distil-large-v3", 1280, 32, 2, 20),
            **(_LARGE | _OTHER),
            hub_id="distil-whisper/distil-large-v3",
            transcribes_only=True,
        ),
        *map(_english_only, _SMALL),
        whisper_of("pocket-s", 64, 2, 2, 2, **_POCKET),
        whisper_of("pocket-m", 96, 3, 2, 2, **_POCKET),
    ],
)
WHISPER_SIZES = tuple(m.name for m in WHISPERS.values() if m.compared and not m.shipped)
POCKET_SIZES = tuple(model.name for model in WHISPERS.values() if model.shipped)

VOXTRALS: Registry[VoxtralModel] = Registry(
    "llm_model",
    [
        VoxtralModel(
            name="mini-3b",
            encoder=WHISPERS["large-v3"].encoder,
            text=LlamaText(
                hidden=3072,
                layers=30,
                heads=32,
                kv_heads=8,
                head_dim=128,
                ffn=8192,
                vocab_size=131_072,
            ),
            hub_id="mistralai/Voxtral-Mini-3B-2507",
        ),
        VoxtralModel(
            name="small-24b",
            encoder=WHISPERS["large-v3"].encoder,
            text=LlamaText(
                hidden=5120,
                layers=40,
                heads=32,
                kv_heads=8,
                head_dim=128,
                ffn=32_768,
                vocab_size=131_072,
            ),
            hub_id="mistralai/Voxtral-Small-24B-2507",
        ),
        VoxtralModel(
            name="pocket",
            encoder=WHISPERS["pocket-m"].encoder,
            text=LlamaText(
                hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32, ffn=384, vocab_size=4096
            ),
            shipped=True,
        ),
    ],
)

#: The family of models that has each role; the server's clients name models by it.
FAMILIES = {"asr": "whisper", "llm": "voxtral"}
#: Said wherever audio that does not ship with the package meets a model that does.
POCKET_WORDS = (
    "the pocket models know spoken English digits only and hear digits in any other speech; real "
    "words need released weights (hybridlab try FILE)"
)
#: Sources of weights that somebody has published.
RELEASED = ("hub", "local")


def whisper(name: str) -> WhisperModel:
    """The Whisper of that size; `ParameterError` lists the good names."""
    return WHISPERS[name]


def voxtral(name: str) -> VoxtralModel:
    """The Voxtral of that name; `ParameterError` lists the good names."""
    return VOXTRALS[name]


def model_named(name: str) -> WhisperModel | VoxtralModel:
    """The Whisper or the Voxtral of that name; `ParameterError` lists the good names."""
    if name not in VOXTRALS and name not in WHISPERS:
        raise ParameterError.unknown_name("model", name, [*WHISPERS, *VOXTRALS])
    return VOXTRALS[name] if name in VOXTRALS else WHISPERS[name]


def language_for(name: str, text: str | None) -> str:
    """What the model of that name is asked for where a reader writes `text`: a code of Whisper's,
    '' to detect it; English-only models have nothing to detect. `ParameterError` for what is no
    language (`whisper_language`), and for one that the model does not know."""
    model, code = model_named(name), whisper_language(text)
    if code and code not in model.languages:
        asked = f"{LANGUAGE_NAMES[code].title()} ({code!r})"
        raise ParameterError(f"{name} does not know {asked}; {_who_knows(model, code)}")
    return model.languages[0] if len(model.languages) == 1 else code


def _who_knows(model: WhisperModel | VoxtralModel, code: str) -> str:
    """What to choose where a model does not know a language."""
    if isinstance(model, VoxtralModel):
        return "set language to '' to have it detected"
    sibling = WHISPERS.get(model.name.removesuffix(ENGLISH_SUFFIX))
    if sibling is not None and code in sibling.languages:
        return f"it is for English alone: choose {sibling.name!r}"
    knowing = [own.name for own in WHISPERS.values() if own.compared and code in own.languages]
    return f"choose one of: {', '.join(knowing)}"


def pocket_words(*names: str) -> str:
    """`POCKET_WORDS` where one of these models ships with the package, else ''; a name that the
    catalog does not know is of no such model."""
    known: dict[str, WhisperModel | VoxtralModel] = {**WHISPERS, **VOXTRALS}
    return POCKET_WORDS if any(name in known and known[name].shipped for name in names) else ""


def source_of(name: str, weights: str) -> str:
    """Where the weights of this model come from if `weights` is the choice for released ones: the
    models that ship with the package have only their own. `auto`: the hub."""
    if model_named(name).shipped:
        return "pocket"
    return "hub" if weights == "auto" else weights
