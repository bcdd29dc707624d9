"""The hub's token: asked for only where a repository is closed."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from hybridlab.errors import WeightsError
from hybridlab.models import hub
from hybridlab.models.base import ModelSpec
from hybridlab.models.weights import one_line_errors

CLOSED = "someone/closed"


def refusal(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("many\nlines", response=response)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Online, with nothing in the cache and no token in the environment; what was asked for."""
    calls: list[str] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv(hub.TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr(hub, "cached", lambda repository: False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: calls.append("token"))
    return calls


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    class Api:
        def __init__(self, token: Any) -> None:
            assert token is False  # nobody's secret is read to ask

        def model_info(self, repository: str, timeout: float) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return SimpleNamespace(gated=answer)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)


def test_an_open_repository_needs_no_token(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    answering(monkeypatch, False)
    hub.check_hub("mistralai/Voxtral-Mini-3B-2507")
    assert asked == []


@pytest.mark.parametrize("answer", ["manual", refusal(401), refusal(403, GatedRepoError)])
def test_a_closed_one_names_the_token_in_one_line(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], answer: Any
) -> None:
    answering(monkeypatch, answer)
    with pytest.raises(WeightsError, match=r"someone/closed.*HF_TOKEN.*Colab a secret") as caught:
        hub.check_hub(CLOSED)
    assert asked == ["token"]
    assert "\n" not in str(caught.value)


def test_a_token_is_handed_to_the_cases(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    answering(monkeypatch, "auto")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setenv(hub.TOKEN_VARIABLE, "")  # so that the change is undone
    hub.check_hub(CLOSED)
    assert os.environ[hub.TOKEN_VARIABLE] == "hf_x"


def test_another_failure_is_not_taken_for_a_closed_door(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    answering(monkeypatch, refusal(500))
    with pytest.raises(WeightsError, match="did not answer"):
        hub.check_hub(CLOSED)
    assert asked == []


def test_a_refusal_while_loading_names_the_token_too() -> None:
    spec = ModelSpec(model="tiny", backend="transformers", weights="hub", dtype="float32")
    with pytest.raises(WeightsError, match="HF_TOKEN"), one_line_errors(spec):
        raise OSError("You are trying to access a gated repo.") from refusal(401)
    with pytest.raises(WeightsError, match="cannot be loaded: disk"), one_line_errors(spec):
        raise OSError("disk\nand more")
