"""What the notebook to start with runs, by its parameters and its machine."""

from __future__ import annotations

from typing import Any

import pytest

from hybridlab.config import preset_files, start
from hybridlab.config.start import SMALL_NOTEBOOKS, StartParams
from hybridlab.errors import ParameterError


def test_elsewhere_it_measures_the_pocket_pair_in_a_few_notebooks_beside_a_simulated_t4() -> None:
    params = StartParams.from_namespace(StartParams().model_dump())
    assert params.measured_preset == "pocket"
    assert params.measured_notebooks == list(SMALL_NOTEBOOKS)
    assert params.simulated_values["device"] == "simulated:t4"


def test_on_a_colab_with_a_gpu_it_measures_the_whole_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    for module in (preset_files, start):
        monkeypatch.setattr(module, "has_gpu", lambda: True)
    params = StartParams.from_namespace(StartParams().model_dump())
    assert (params.preset, params.measured_preset) == ("colab-t4", "colab-t4")
    assert params.measured_notebooks == []  # the runner's word for all of them
    assert params.simulated_card == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "poket"}, "did you mean 'pocket'"),
        ({"notebooks": ["2"]}, "unknown notebook '2'"),
        ({"notebooks": "02"}, "notebooks"),
        ({"simulate": "t5"}, "unknown card 't5'"),
        ({"overrides": {"trails": 3}}, "did you mean 'trials'"),
        ({"overrides": {"trials": 0}}, "trials = 0"),
        ({"trials": 3}, "unknown parameter 'trials'"),
        ({"preset": "own-audio"}, "audio has to be given"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_run(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        StartParams.from_namespace({**StartParams().model_dump(), **given})
