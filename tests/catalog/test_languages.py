"""Languages as people and programs write them, and which models know them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from pydantic import TypeAdapter, ValidationError

from hybridlab import catalog
from hybridlab.catalog.languages import OTHER_NAMES
from hybridlab.errors import ParameterError


def test_names_and_codes_are_whisper_s_in_its_order() -> None:
    from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

    assert list(catalog.LANGUAGE_NAMES.items()) == list(LANGUAGES.items())
    assert {name: code for code, name in catalog.LANGUAGE_NAMES.items()} | OTHER_NAMES == (
        TO_LANGUAGE_CODE
    )


def test_languages_are_those_that_both_models_take() -> None:
    from mistral_common.protocol.transcription.request import TranscriptionRequest

    language = TypeAdapter(TranscriptionRequest.model_fields["language"].annotation)
    common = []
    for code in catalog.whisper("tiny").languages:
        with suppress(ValidationError):
            common.append(str(language.validate_python(code)))
    assert common == catalog.LANGUAGES == catalog.voxtral("mini-3b").languages


@pytest.mark.parametrize(
    ("size", "count"),
    [("tiny.en", 1), ("tiny", 99), ("large-v2", 99), ("large-v3", 100), ("turbo", 100)],
)
def test_a_model_knows_the_languages_of_its_tokens(size: str, count: int) -> None:
    from hybridlab.models.processors import whisper_generation_config

    known = catalog.whisper(size)
    assert len(known.languages) == count
    config = whisper_generation_config(vocab_size=known.vocab_size)
    tokens = [f"<|{code}|>" for code in known.languages]
    assert tokens == list(getattr(config, "lang_to_id", {"<|en|>": 0}))


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (None, ""),
        ("", ""),
        ("  ", ""),
        ("auto", ""),
        ("AUTO", ""),
        ("de", "de"),
        (" DE ", "de"),
        ("English", "en"),
        ("german", "de"),
        ("Haitian  Creole", "ht"),
        ("Mandarin", "zh"),
        ("en-US", "en"),
        ("en_GB", "en"),
        ("pt-BR", "pt"),
        ("zh-CN", "zh"),
        ("zh-tw", "zh"),
        ("zh-Hant-TW", "zh"),
        ("es-419", "es"),
        ("nb", "no"),
        ("nb-NO", "no"),
        ("nn", "nn"),
        ("yue", "yue"),
        ("yue-HK", "yue"),
        ("Cantonese", "yue"),
        ("iw", "he"),
        ("in", "id"),
        ("ji", "yi"),
        ("jw", "jw"),
        ("jv", "jw"),
        ("haw", "haw"),
        ("fil-PH", "tl"),
        ("cmn-Hans-CN", "zh"),
    ],
)
def test_a_language_is_read_however_it_is_written(written: str | None, code: str) -> None:
    assert catalog.whisper_language(written) == code


@pytest.mark.parametrize(
    "written", ["xx", "null", "undefined", "en-", "-US", "english-US", "de,en", "klingon" * 9]
)
def test_what_is_no_language_is_one_line_with_what_would_do(written: str) -> None:
    with pytest.raises(
        ParameterError, match=r"is not known; write a code like 'en'.*'German'"
    ) as caught:
        catalog.whisper_language(written)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    ("model", "written", "code"),
    [
        ("tiny.en", "", "en"),
        ("tiny.en", "auto", "en"),
        ("tiny.en", "en-US", "en"),
        ("tiny", "", ""),
        ("tiny", "German", "de"),
        ("large-v3", "yue", "yue"),
        ("mini-3b", "de", "de"),
        ("mini-3b", None, ""),
    ],
)
def test_what_a_model_is_asked_for(model: str, written: str | None, code: str) -> None:
    assert catalog.language_for(model, written) == code


@pytest.mark.parametrize(
    ("model", "written", "message"),
    [
        ("tiny.en", "de", r"tiny\.en does not know German \('de'\); .*choose 'tiny'"),
        ("medium.en", "French", "choose 'medium'"),
        ("tiny.en", "yue", "choose one of: large-v3, turbo"),
        ("medium", "yue", r"Cantonese \('yue'\); choose one of: large-v3, turbo"),
        ("mini-3b", "haw", "Hawaiian .*'' to have it detected"),
    ],
)
def test_a_language_that_a_model_does_not_know(model: str, written: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        catalog.language_for(model, written)
