"""A made-up run with rows for every figure, and every figure drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.reporting import figures
from hybridlab.reporting.rows import RACE
from hybridlab.results.reader import run_table
from hybridlab.results.schema import TABLES
from hybridlab.units import MIB
from tests.synthetic import case, memory, write_run

Tables = dict[str, pd.DataFrame]
SEQUENTIAL = "race-sequential-plain-04_sequential-r0"
ARMS = {
    ("sequential", "plain"): 0.2,
    ("parallel", "threads"): 0.15,
    ("swapping", "single-buffer"): 0.3,
}
#: Arms that are asked over HTTP.
SERVED: dict[str, Any] = {
    "single-container": {"servers": 1, "server_overhead_bytes": 500 * MIB, "gateway_bytes": None},
    "separate-containers": {
        **{"servers": 2, "server_overhead_bytes": 900 * MIB, "gateway_bytes": 50 * MIB}
    },
}


def tables_of(folder: Path) -> Tables:
    """The synthetic run, with the experiments that it lacks."""
    run = write_run(folder)
    tables = {name: run_table(run, name) for name in TABLES}
    for name, rows in more_rows().items():
        more = pd.DataFrame(rows).assign(
            run_id="synthetic-run", memory_limited=False, device="cuda:0"
        )
        tables[name] = pd.concat([tables[name], more], ignore_index=True)
    return tables


def more_rows() -> dict[str, list[dict[str, Any]]]:
    """Rows by table of the experiments that the synthetic run lacks."""
    cases, trials, probes = [], [], []
    for (strategy, variant), seconds in ARMS.items():
        arm = {"strategy": strategy, "variant": variant, "notebook": "05_parallel"}
        for rate in (1.0, 2.0, 4.0):
            name = f"arrivals-{strategy}-{rate:g}"
            own = {"arrival_rate_rps": rate, "load": rate / 5, "throughput_rps": 0.9 * rate}
            cases.append(case(name, "load_sweep", **arm) | memory(3.06) | own)
            waits = [rate * seconds * share for share in np.linspace(0, 1, 100)]
            trials += [_trial(name, "load_sweep", arm, seconds + w, queue_time_s=w) for w in waits]
        name = f"lengths-{strategy}"
        cases.append(case(name, "service_times", **arm) | memory(3.06))
        for audio_s in (15.0, 30.0):
            times = [seconds * audio_s / 15 * (1 + 0.1 * n) for n in range(5)]
            trials += [_trial(name, "service_times", arm, took, audio_s=audio_s) for took in times]
        name = f"edge-{strategy}"
        cases.append(case(name, "memory_limits", limit_kind="headroom", **arm) | memory(3.06))
        probes += _squeezed(name, int(1_000 * seconds))
    for variant, own in SERVED.items():
        arm = {"strategy": "parallel", "variant": variant, "notebook": "05_parallel"}
        name = f"served-{variant}"
        cases.append(case(name, RACE, **arm) | memory(3.06) | own)
        spent = {"http_overhead_s": 0.015, "gateway_s": 0.005 if own["gateway_bytes"] else None}
        trials += [_trial(name, RACE, arm, took, **spent) for took in (0.16, 0.17, 0.19)]
    for role, size, wrong in (("llm", None, 1), ("asr", "base", 3), ("asr", "tiny", 5)):
        name = f"quality-{size or role}"
        own = {"strategy": "reference", "variant": role, "asr_model": size}
        cases.append(case(name, "quality", **own) | memory(0.3) | {"notebook": "02"})
        trials += [_said(name, own, wrong, clip) for clip in range(6)]
    cases.append(case("interference", "interference", strategy="parallel", variant="threads"))
    return {"cases": cases, "trials": trials, "probes": probes, "spans": _collisions()}


def _trial(name: str, experiment: str, arm: dict[str, Any], latency_s: float, **more: Any) -> Any:
    own = {"case_id": name, "experiment": experiment, "latency_s": latency_s, "request_id": "r"}
    return {**arm, **own, "audio_s": 15.0, "is_first_request": False, **more}


def _squeezed(name: str, least_mib: int) -> list[dict[str, Any]]:
    about = {"case_id": name, "experiment": "memory_limits", "limit_kind": "headroom"}
    return [
        {
            **about,
            "repeat": repeat,
            "value": (least_mib + 10 * repeat) * factor * MIB,
            "succeeded": factor >= 1,
        }
        for repeat in range(3)
        for factor in (0.5, 1.0, 2.0)
    ]


def _said(name: str, own: dict[str, Any], wrong: int, clip: int) -> dict[str, Any]:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    heard = " ".join(["what"] * wrong + words[wrong:])
    texts = {"reference": " ".join(words), "transcript": heard, "audio_s": 10.0}
    return {**_trial(name, "quality", own, 0.5), **texts, "is_first_request": clip == 0}


def _collisions() -> list[dict[str, Any]]:
    """Two models alone, and together at half their speed."""
    about = {"case_id": "interference", "experiment": "interference", "phase": "encode"}
    about["notebook"] = "05_parallel"
    spans = []
    for turn in range(10):
        for roles, at, took in (
            (("llm",), 4, 0.1),
            (("asr",), 6, 0.1),
            (("llm", "asr"), 8, 0.2 + 0.001 * turn),
        ):
            pairing = "+".join(roles) if len(roles) > 1 else "reference"
            times = {"start_s": 10.0 * turn + at, "end_s": 10.0 * turn + at + took}
            request = {"request_id": f"{pairing}:a"}
            spans += [{**about, **request, "role": role, **times} for role in roles]
    return spans


def of(tables: Tables, *experiments: str) -> pd.DataFrame:
    return tables["cases"][tables["cases"]["experiment"].isin(experiments)]


def noise(seconds: float) -> Samples:
    drawn = np.random.default_rng(0).normal(0, 0.1, round(16_000 * seconds))
    return drawn.astype(np.float32)


DRAWN: dict[str, Callable[[Tables], Figure]] = {
    "memory_bars": lambda t: figures.memory_bars(of(t, "co_residency")),
    "load_peak": lambda t: figures.memory_bars(of(t, "co_residency"), moment="load_peak"),
    "all_cases": lambda t: figures.memory_bars(t["cases"]),
    "one_case": lambda t: figures.memory_bars(of(t, "baseline")),
    "which_fits": lambda t: figures.which_fits(of(t, "co_residency")),
    "three_numbers": lambda t: figures.three_numbers(of(t, "co_residency")),
    "predicted": lambda t: figures.predicted_against_measured(t["ledgers"], of(t, "co_residency")),
    "over_time": lambda t: figures.memory_over_time(
        t["samples"], t["spans"], t["cases"], case_id=SEQUENTIAL
    ),
    "request_lanes": lambda t: figures.request_lanes(t["spans"], t["cases"]),
    "all_lanes": lambda t: figures.request_lanes(t["spans"], t["cases"], every_variant=True),
    "latency": lambda t: figures.latency(t["trials"], t["cases"]),
    "latency_ecdf": lambda t: figures.latency_ecdf(t["trials"], t["cases"]),
    "throughput": lambda t: figures.throughput(t["cases"], t["trials"]),
    "load_sweep": lambda t: figures.load_sweep(t["trials"], t["cases"]),
    "break_even": lambda t: figures.break_even(t["trials"], t["cases"]),
    "interference": lambda t: figures.interference(t["spans"], t["cases"]),
    "survival": lambda t: figures.survival(t["probes"], t["cases"]),
    "swap_stages": lambda t: figures.swap_stages(t["spans"], t["cases"]),
    "request_scaling": lambda t: figures.request_scaling(t["cases"]),
    "soak": lambda t: figures.soak(t["cycles"], t["cases"]),
    "quality_memory": lambda t: figures.quality_memory(t["trials"], t["cases"]),
    "pareto": lambda t: figures.pareto(t["cases"], t["trials"]),
    "request": lambda _: figures.request(noise(45.0), name="a clip"),
    "plan": lambda _: figures.which_fits(pd.DataFrame(), catalog.card("t4")),
}
#: Those that read tables of a run.
FROM_TABLES = [name for name in DRAWN if name not in ("plan", "request")]
#: Those that have something to show without any row: what is predicted.
PREDICTED = ("which_fits",)


def words_of(figure: Figure) -> str:
    """All that is written outside the axes: title and small print, or what is missing."""
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())
