"""What was measured or simulated of the combinations that the explorer can choose: in this run and
in those that are published with the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hybridlab import catalog, planner
from hybridlab.analysis.case_status import with_bytes
from hybridlab.catalog.device_names import simulated_card
from hybridlab.reporting.figures.memory import case_stack
from hybridlab.reporting.labels import MOMENTS, text_of
from hybridlab.reporting.memory_stack import Stack
from hybridlab.reporting.rows import complete
from hybridlab.results.manifest import read_manifest
from hybridlab.results.reader import run_table
from hybridlab.units import counted

#: Experiments whose requests are plain ones: one after the other, nothing pinned, nothing pressed.
EXPERIMENTS = (
    "setup",
    "baseline",
    "co_residency",
    "loading",
    "request_scaling",
    "strategy_comparison",
)
#: Those whose only request is of one window, so that their cases need no trials beside them.
ONE_WINDOW = ("co_residency", "loading")
#: How a case must have been loaded and computed to be what the explorer draws.
PLAIN = {"attention": "auto", "load_order": "llm-first", "load_path": "direct"}
#: Results of other runs beside the package in a checkout; an installed package has none.
REFERENCE = Path(__file__).resolve().parents[2] / "outputs" / "reference"


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A pair on a card, the way in which it shares it, and one request."""

    card: str
    voxtral: str
    llm_dtype: str
    whisper: str
    backend: str
    dtype: str
    way: str
    audio_s: float
    batch: int

    @property
    def windows(self) -> int:
        """What an audio costs goes by its started windows of 30 s."""
        return planner.Request(audio_s=self.audio_s).windows


@dataclass(frozen=True, kw_only=True)
class Point(Combination):
    """One case. `stacks` has bytes by owner at each moment, as the figures draw them;
    `process_baseline_bytes` is the process before any model."""

    run: str
    evidence: str
    process_baseline_bytes: float
    peak_bytes: float
    stacks: Mapping[str, Stack]

    @property
    def title(self) -> str:
        """The combination in a menu."""
        whisper = f" + {self.whisper} {self.dtype} ({self.backend})" if self.whisper else ""
        many = f", batch {self.batch}" if self.batch > 1 else ""
        return (
            f"{self.card} ({self.evidence}), {self.run}: {self.voxtral} {self.llm_dtype}{whisper}, "
            f"{self.way}, {counted(self.windows, 'window')}{many}"
        )


def run_points(run_dir: Path, *, card: str) -> list[Point]:
    """Points of a run that is at work or finished; `card` is the GPU's name in the catalog, ''
    where there is none."""
    part = read_manifest(run_dir / "parts" / "06_swapping")
    swap = part.get("params", {}).get("swap", "asr")
    cases, trials = run_table(run_dir, "cases"), run_table(run_dir, "trials")
    return points(cases, trials, run="this run", card=card, swap=swap)


def reference_points(folder: Path = REFERENCE) -> list[Point]:
    """Points of every published run; a GPU's card is the one that the manifest names."""
    found: list[Point] = []
    for path in sorted(folder.glob("*/cases.parquet")):
        params = read_manifest(path.parent).get("params", {})
        found += points(
            pd.read_parquet(path),
            run_table(path.parent, "trials"),
            run=f"run {path.parent.name}",
            card=params.get("card", ""),
            swap=params.get("swap", "asr"),
        )
    return found


def points(
    cases: pd.DataFrame, trials: pd.DataFrame, *, run: str, card: str, swap: str = "asr"
) -> list[Point]:
    """The cases that served plain requests and have their bytes, one point each."""
    if cases.empty:
        return []
    own = with_bytes(complete("cases", cases))
    audio_s = own["case_id"].map(trials.groupby("case_id")["audio_s"].max())
    audio_s = audio_s.fillna(catalog.WINDOW_S).where(
        audio_s.notna() | own["experiment"].isin(ONE_WINDOW)
    )
    own = own[own["experiment"].isin(EXPERIMENTS) & audio_s.notna()]
    own = own[own["peak_bytes"] > 0]
    rows = zip(audio_s[own.index], own.iterrows(), strict=True)
    return [
        _point(row, float(seconds), run, card, swap) for seconds, (_, row) in rows if _is_plain(row)
    ]


def _is_plain(row: pd.Series[Any]) -> bool:
    pinned = any(text_of(row, name) not in ("", value) for name, value in PLAIN.items())
    return bool(_ledger(row, "asr")) and not pinned and not bool(row["memory_limited"])


def _ledger(row: pd.Series[Any], swap: str) -> str:
    """The planner's ledger for a case's variant; '' where it has none, and for weights that wait in
    host memory, which no ledger has."""
    strategy, variant = text_of(row, "strategy"), text_of(row, "variant")
    if strategy not in catalog.STRATEGIES or variant not in catalog.strategy(strategy).variants:
        return ""
    own = catalog.variant(strategy, variant)
    return "" if own.host_copy else own.predicted(swap)


def _point(row: pd.Series[Any], audio_s: float, run: str, card: str, swap: str) -> Point:
    batch = int(row["scaling_value"]) if text_of(row, "scaling_kind") == "batch" else 1
    device = text_of(row, "device")
    simulated = simulated_card(device)
    here = simulated.name if simulated else card
    return Point(
        run=run,
        evidence=text_of(row, "evidence") or "measured",
        card=catalog.HOST.name if device == "cpu" else here,
        voxtral=text_of(row, "llm_model"),
        llm_dtype=text_of(row, "llm_dtype"),
        whisper=text_of(row, "asr_model"),
        backend=text_of(row, "asr_backend"),
        dtype=text_of(row, "asr_dtype"),
        way=_ledger(row, swap),
        audio_s=audio_s / batch,  # such a trial counts the audio of all its rows
        batch=batch,
        process_baseline_bytes=float(row["process_baseline_bytes"]),
        peak_bytes=float(row["peak_bytes"]),
        stacks={moment: case_stack(row, moment) for moment in MOMENTS},
    )
