from __future__ import annotations

import json

import pytest
import torch

from hybridlab import catalog
from hybridlab.errors import ParameterError
from hybridlab.models.pocket import pocket_dir
from hybridlab.models.weights import voxtral_config, whisper_config

#: transformers' counts of the released models, to the unit.
RELEASED = {
    "tiny": 37_760_640,
    "base": 72_593_920,
    "small": 241_734_912,
    "medium": 763_857_920,
    "large-v3": 1_543_490_560,
    "turbo": 808_878_080,
    "tiny.en": 37_760_256,
    "base.en": 72_593_408,
    "small.en": 241_734_144,
    "medium.en": 763_856_896,
}


@pytest.mark.parametrize("size", RELEASED)
def test_whisper_parameters_equal_the_released_count(size: str) -> None:
    assert catalog.whisper(size).parameters == RELEASED[size]


def test_voxtral_parameters_by_part() -> None:
    model = catalog.voxtral("mini-3b")
    assert model.encoder.parameters == 636_968_960
    assert model.projector_parameters == 25_165_824
    assert model.text.parameters == 3_611_483_136
    assert model.head_parameters == 402_653_184
    assert model.parameters == 4_676_271_104


@pytest.mark.parametrize("size", catalog.WHISPERS)
def test_whisper_architecture_on_the_meta_device(size: str) -> None:
    from transformers import WhisperForConditionalGeneration

    known = catalog.whisper(size)
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(whisper_config(known))
    assert sum(p.numel() for p in model.parameters()) == known.parameters


@pytest.mark.parametrize("name", catalog.VOXTRALS)
def test_voxtral_architecture_on_the_meta_device(name: str) -> None:
    from transformers import VoxtralForConditionalGeneration

    known = catalog.voxtral(name)
    with torch.device("meta"):
        model = VoxtralForConditionalGeneration(voxtral_config(known))
    assert sum(p.numel() for p in model.parameters()) == known.parameters


@pytest.mark.parametrize("size", catalog.POCKET_SIZES)
def test_catalog_knows_the_shipped_whispers(size: str) -> None:
    config = json.loads((pocket_dir(size) / "config.json").read_text())
    known = catalog.whisper(size)
    assert config["d_model"] == known.encoder.d_model
    assert config["encoder_layers"] == known.encoder.layers
    assert config["decoder_layers"] == known.decoder_layers
    assert config["vocab_size"] == known.vocab_size


def test_sizes_per_beam_and_token_of_the_released_models() -> None:
    large = catalog.whisper("large-v3")
    assert large.cross_kv_values * 2 / 2**20 == pytest.approx(234.4, abs=0.05)
    assert large.self_kv_values_per_token * 2 == 163_840
    assert catalog.voxtral("mini-3b").text.kv_values_per_token * 2 == 122_880


def test_every_card_has_less_usable_than_nominal_memory() -> None:
    for card in catalog.CARDS.values():
        assert 0 < card.usable_bytes <= card.usable_bytes_max <= card.nominal_bytes
    assert "bfloat16" not in catalog.card("T4").native_dtypes


def test_unknown_names_list_the_good_ones() -> None:
    with pytest.raises(ParameterError, match="choose one of: t4"):
        catalog.card("t5")
    with pytest.raises(ParameterError, match="choose one of: tiny"):
        catalog.whisper("enormous-v9")


def test_english_only_models_are_named_and_not_compared() -> None:
    english = {name: own for name, own in catalog.WHISPERS.items() if not own.multilingual}
    assert list(english) == ["tiny.en", "base.en", "small.en", "medium.en"]
    for name, own in english.items():
        sibling = catalog.whisper(name.removesuffix(".en"))
        assert (own.vocab_size, own.hub_id) == (51_864, f"openai/whisper-{name}")
        assert own.parameters == sibling.parameters - own.encoder.d_model
        assert own.published_wer == sibling.published_wer
        assert not own.compared
        assert name not in catalog.WHISPER_SIZES


def test_libraries_publish_the_english_only_models() -> None:
    import whisper

    from hybridlab.models.checkpoint import repository_of
    from tests.models.conftest import spec

    for name in ("tiny.en", "base.en", "small.en", "medium.en"):
        assert name in whisper.available_models()
        assert repository_of(spec(name, "openai-whisper", weights="hub")).endswith(f"{name}.pt")
