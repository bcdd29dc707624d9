"""Slowdowns by known answers: made-up spans whose rates are given."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hybridlab.analysis.phase_slowdown import slowdowns

#: How much slower an `encode` of a party is beside each phase of the other.
GIVEN = {"encode": 2.0, "decode": 1.25}


def made_up(count: int = 200) -> pd.DataFrame:
    """Whisper encodes for 0.1 s (alone) at random times beside a Voxtral that takes turns between
    0.07 s of encode, 0.05 s of decode and 0.03 s of nothing."""
    rng = np.random.default_rng(0)
    rows = [("reference:a", "asr", "encode", 0.0, 0.1)] * 3
    rows += [("reference:a", "llm", phase, 1.0, 1.1) for phase in GIVEN] * 3
    turns = [("encode", 0.07), ("decode", 0.05), ("", 0.03)]
    beside, time_s = [], 10.0
    while time_s < 10.0 + count:
        for phase, seconds in turns:
            beside.append((phase, time_s, time_s + seconds))
            time_s += seconds
    rows += [("llm+asr:a", "llm", phase, start, end) for phase, start, end in beside if phase]
    step = 0.0001
    edges = np.array([start for _, start, _ in beside])
    slow = np.array([GIVEN.get(phase, 1.0) for phase, _, _ in beside])
    for begin in 10.0 + np.arange(count - 1) + rng.uniform(0, 0.5, count - 1):
        done, now = 0.0, begin
        while done < 0.1:
            done += step / slow[np.searchsorted(edges, now, side="right") - 1]
            now += step
        rows.append(("llm+asr:a", "asr", "encode", begin, now))
    columns = ["request_id", "role", "phase", "start_s", "end_s"]
    return pd.DataFrame(rows, columns=columns)


def test_given_slowdowns_are_found() -> None:
    found = slowdowns(made_up())
    whisper = found[found["role"] == "asr"].set_index("other_phase")
    assert set(whisper.index) == set(GIVEN)
    for phase, slowdown in GIVEN.items():
        assert whisper.loc[phase, "slowdown"] == pytest.approx(slowdown, rel=0.03)
        assert whisper.loc[phase, "low"] <= whisper.loc[phase, "slowdown"]
        assert whisper.loc[phase, "high"] >= whisper.loc[phase, "slowdown"]


def test_a_request_is_compared_with_itself() -> None:
    """A longer request is not a slower one."""
    rows = [("reference:a", "asr", "encode", 0.0, 0.1), ("reference:b", "asr", "encode", 1.0, 1.3)]
    rows *= 3
    rows += [("copy+asr:a", "asr", "encode", float(t), t + 0.1) for t in range(5, 15, 2)]
    rows += [("copy+asr:b", "asr", "encode", float(t), t + 0.3) for t in range(6, 15, 2)]
    rows += [("copy+asr:a", "copy", "copy-in", t - 0.1, t + 0.8) for t in range(5, 15)]
    spans = pd.DataFrame(rows, columns=["request_id", "role", "phase", "start_s", "end_s"])
    found = slowdowns(spans)
    assert found[found["role"] == "asr"]["slowdown"].iloc[0] == pytest.approx(1.0)


def noisy(rng: np.random.Generator) -> pd.DataFrame:
    """Whisper encodes four requests of known work beside a Voxtral that takes turns: every time
    alone and every piece of work scatters by 5 %."""
    rows: list[tuple[str, str, str, float, float]] = []
    work = {f"q{number}": 0.06 + 0.03 * number for number in range(4)}
    for spec, seconds in work.items():
        for again in range(5):
            end = again + seconds * math.exp(rng.normal(0, 0.05))
            rows.append((f"reference:{spec}", "asr", "encode", float(again), end))
    edges, phases = [1000.0], []
    while edges[-1] < 1020.0:
        for phase, seconds in (("encode", 0.07), ("decode", 0.05), ("", 0.03)):
            phases.append(phase)
            edges.append(edges[-1] + seconds * rng.uniform(0.5, 1.5))
            if phase:
                rows.append(("llm+asr:x", "llm", phase, edges[-2], edges[-1]))
    done = np.cumsum([0.0, *np.diff(edges) / [GIVEN.get(phase, 1.0) for phase in phases]])
    begin = 1000.1
    for spec in list(work) * 10:
        needed = work[spec] * math.exp(rng.normal(0, 0.05))
        end = float(np.interp(np.interp(begin, edges, done) + needed, done, edges))
        rows.append((f"llm+asr:{spec}", "asr", "encode", begin, end))
        begin = end + rng.uniform(0, 0.1)
    return pd.DataFrame(rows, columns=["request_id", "role", "phase", "start_s", "end_s"])


def test_the_intervals_count_the_error_of_the_times_alone() -> None:
    covered = []
    for seed in range(100):
        found = slowdowns(noisy(np.random.default_rng(seed))).set_index("other_phase")
        assert np.isfinite(found[["slowdown", "low", "high"]].to_numpy(dtype=float)).all()
        covered += [found["low"][p] <= given <= found["high"][p] for p, given in GIVEN.items()]
    assert 0.92 <= np.mean(covered) <= 0.98


def test_what_could_be_anything_is_not_told() -> None:
    found = noisy(np.random.default_rng(0))
    alone = found["request_id"].str.startswith("reference")
    assert slowdowns(found[~alone | ~found.duplicated(["request_id"])]).empty  # one time each
    few = found[found["request_id"] != "llm+asr:q0"].groupby("request_id").head(3)
    told = slowdowns(few)
    assert np.isfinite(told[["slowdown", "low", "high"]].to_numpy(dtype=float)).all()


def test_without_pairs_nothing_is_claimed() -> None:
    alone = made_up(2)
    assert slowdowns(alone[alone["request_id"].str.startswith("reference")]).empty
    assert slowdowns(alone.iloc[:0]).empty
