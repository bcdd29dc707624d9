"""Sessions of notebooks with the small pair, and what tests ask of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hybridlab.config.params import Params, SequentialParams
from hybridlab.experiments.plans.strategy_comparison import Arm
from hybridlab.experiments.session import Session
from hybridlab.models import ModelSpec

WHISPER = ModelSpec(
    model="pocket-m", backend="openai-whisper", weights="pocket", dtype="float32", seed=1
)
VOXTRAL = ModelSpec(model="pocket", backend="transformers", weights="pocket", dtype="float32")


def open_session(tmp_path: Path, model: type[Params] = SequentialParams, **values: Any) -> Session:
    """Two short requests; other processes on this machine make no time invalid."""
    small = {
        "output_dir": str(tmp_path / "run"),
        "headless": True,
        "trials": 2,
        "max_new_tokens": 32,
        "max_other_cpu_share": 1.0,
    }
    return Session.open(model.from_mapping({**small, **values}))


def arms(*names: str) -> list[Arm]:
    """Arms by their names as 'sequential/plain'."""
    return [Arm(*name.split("/")) for name in names]


def assert_ok(rows: Sequence[dict[str, Any]], count: int) -> None:
    assert [row["status"] for row in rows] == ["ok"] * count, [row["reason"] for row in rows]


def later(trials: pd.DataFrame) -> pd.DataFrame:
    """All but first requests."""
    return trials[~trials["is_first_request"].astype(bool)]


def raced(session: Session) -> pd.DataFrame:
    """Trials of the race but for first requests, each with the texts of its models alone."""
    trials = session.table("trials")
    found = later(trials[trials["experiment"] == "strategy_comparison"])
    assert found["output_matches_reference"].astype(bool).all()
    return found


def closed(own: pd.DataFrame, capacity_bytes: int, *, unattributed: float = 0.05) -> pd.Series[int]:
    """Bytes by owner of a moment's case, after its ledger was seen to close on the device with
    little that no owner claims."""
    assert own["bytes"].sum() == capacity_bytes
    inside = own[own["in_process"].astype(bool)].set_index("owner")["bytes"]
    assert abs(inside["unattributed"]) <= unattributed * inside.sum(), set(own["moment"])
    return inside
