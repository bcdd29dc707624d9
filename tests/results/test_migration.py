"""An older run by the present names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from hybridlab.config.params import (
    NOTEBOOKS,
    BesideParams,
    Params,
    SequentialParams,
    SwappingParams,
    all_parameter_names,
)
from hybridlab.config.renamed import COLUMNS, COLUMNS_OF, PARAMETERS
from hybridlab.errors import ParameterError, RunFolderError
from hybridlab.results.migration import migrate
from hybridlab.results.schema import SCHEMA_VERSION, TABLES, columns

OLD_CASE = {
    "case_id": "a",
    "experiment": "race",
    "strategy": "swapping",
    "variant": "arena",
    "voxtral": "mini-3b",
    "whisper_size": "medium",
    "voxtral_bytes": 9_000,
    "load_peak_bytes": 11_000,
    "request_peak_bytes": 12_000,
    "steady_bytes": 10_000,
    "ask": "squeeze",
    "limit_kind": "batch",
    "stable": None,
}
OLD_LEDGERS = [
    {
        "case_id": "a",
        "moment": "steady",
        "owner": "voxtral weights",
        "bytes": 9_000,
        "inside": True,
    },
    {
        "case_id": "a",
        "moment": "whisper encode",
        "owner": "unexplained",
        "bytes": 1,
        "inside": True,
    },
]


def old_run(folder: Path) -> Path:
    part = folder / "run" / "parts" / "06_swapping"
    part.mkdir(parents=True)
    (part / "cases.jsonl").write_text(json.dumps(OLD_CASE) + "\n")
    (part / "ledgers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in OLD_LEDGERS))
    params = {"whisper_size": "medium", "trials": 2, "swapping_variants": ["arena", "pinned"]}
    told = {"measurement_version": 8, "params": params}
    (part / "manifest.json").write_text(json.dumps(told))
    pd.DataFrame([OLD_CASE]).to_parquet(folder / "run" / "cases.parquet")
    (folder / "run" / "manifest.json").write_text(json.dumps(told))
    return folder / "run"


def test_tables_and_manifests_of_an_older_run(tmp_path: Path) -> None:
    run = old_run(tmp_path)
    assert len(migrate(run)) == 5
    case = json.loads((run / "parts/06_swapping/cases.jsonl").read_text())
    assert (case["experiment"], case["variant"]) == ("strategy_comparison", "single-buffer")
    assert (case["llm_model"], case["asr_model"]) == ("mini-3b", "medium")
    assert (case["llm_weights_bytes"], case["idle_bytes"], case["peak_bytes"]) == (
        9_000,
        10_000,
        12_000,
    )
    assert (case["limit_kind"], case["scaling_kind"]) == ("headroom", "batch")
    assert set(case) <= set(columns("cases"))
    ledgers = [json.loads(line) for line in (run / "parts/06_swapping/ledgers.jsonl").open()]
    assert [(row["moment"], row["owner"]) for row in ledgers] == [
        ("idle", "llm weights"),
        ("asr encode", "unattributed"),
    ]
    assert pd.read_parquet(run / "cases.parquet").iloc[0].to_dict() == case
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["params"] == {
        "asr_model": "medium",
        "trials": 2,
        "swapping_variants": ["single-buffer", "pinned"],
    }
    assert (manifest["schema_version"], manifest["measurement_version"]) == (SCHEMA_VERSION, 8)
    assert migrate(run) == [], "a second time changes nothing"


def test_what_holds_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="does not hold a run"):
        migrate(tmp_path)
    manifest = tmp_path / "somebodys" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text("{}")  # of an older schema, below a folder that is no run
    with pytest.raises(RunFolderError, match="does not hold a run"):
        migrate(tmp_path)
    assert manifest.read_text() == "{}"
    with pytest.raises(RunFolderError, match="does not exist"):
        migrate(tmp_path / "nowhere")


@pytest.mark.parametrize("old", PARAMETERS)
def test_an_old_parameter_names_the_new_one(old: str) -> None:
    with pytest.raises(ParameterError, match=f"{old}' is now '{PARAMETERS[old]}'"):
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
    assert NOTEBOOKS
    assert set(PARAMETERS.values()) <= all_parameter_names()
    assert not set(PARAMETERS) & all_parameter_names()
    known = {name for table in TABLES for name in columns(table)}
    assert {*COLUMNS.values(), *COLUMNS_OF["trials"].values()} - known <= set(PARAMETERS.values())
