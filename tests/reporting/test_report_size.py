"""A report of many cases: written in seconds, and small enough to be mailed."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pandas as pd
import pytest

from hybridlab.reporting.html import build_report
from hybridlab.results.schema import TABLES
from tests.synthetic import write_run

CASES = 1_000
#: Of processor time: other programs do not count.
MOST_S = 30.0
MOST_BYTES = 5_000_000


@pytest.mark.slow
def test_a_thousand_cases_are_written_in_seconds_and_stay_small(tmp_path: Path) -> None:
    run = repeated(write_run(tmp_path))
    began_s = time.process_time()
    page = build_report(run)
    assert time.process_time() - began_s < MOST_S
    assert page.stat().st_size < MOST_BYTES
    assert re.search(r"All 1\d{3} cases", page.read_text(encoding="utf-8"))


def repeated(run: Path) -> Path:
    """The run with all its rows as often as it takes, each time of other cases and rounds."""
    times = -(-CASES // len(pd.read_parquet(run / "cases.parquet")))
    for path in (run / f"{name}.parquet" for name in TABLES):
        if not path.is_file():
            continue
        rows = pd.read_parquet(path)
        more = [
            rows.assign(
                case_id=rows["case_id"].map(lambda name, turn=turn: f"{name}-{turn}"),
                **({"round": rows["round"] + 5 * turn} if "round" in rows else {}),
            )
            for turn in range(times)
        ]
        pd.concat(more, ignore_index=True).to_parquet(path)
    for path in run.glob("parts/*/*.jsonl"):
        path.unlink()
    assert len(pd.read_parquet(run / "cases.parquet")) >= CASES
    return run
