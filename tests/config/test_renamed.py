"""What was called otherwise before is refused with its present name."""

from __future__ import annotations

import re

import pytest

from hybridlab.config.params import (
    BesideParams,
    Params,
    SequentialParams,
    SwappingParams,
    all_parameter_names,
)
from hybridlab.config.renamed import PARAMETERS
from hybridlab.errors import ParameterError


def test_an_old_parameter_names_the_new_one() -> None:
    for old, new in PARAMETERS.items():
        with pytest.raises(ParameterError, match=f"{old}' is now '{new}'"):
            SequentialParams.from_mapping({old: "x"})


@pytest.mark.parametrize(
    ("kind", "name", "old", "new"),
    [
        (SwappingParams, "swapping_variants", ["pinned", "arena"], "['pinned', 'single-buffer']"),
        (SwappingParams, "swap", "whisper", "'asr'"),
        (SequentialParams, "solo_variants", ["naive"], "['two-requests']"),
        (BesideParams, "load_orders", ["voxtral-first"], "['llm-first']"),
    ],
)
def test_an_old_value_names_the_new_one(
    kind: type[Params], name: str, old: object, new: str
) -> None:
    with pytest.raises(ParameterError, match=re.escape(f"is now {new}; rename it")):
        kind.from_mapping({name: old})
    assert kind.from_mapping({}) is not None, "present defaults are no old values"


def test_new_names_are_in_use_and_old_ones_are_not() -> None:
    assert set(PARAMETERS.values()) <= all_parameter_names()
    assert not set(PARAMETERS) & all_parameter_names()
