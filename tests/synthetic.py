"""A small made-up run folder: every table, plausible numbers, nothing measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hybridlab.config.params import Params, parameters_of
from hybridlab.results.manifest import now, run_manifest, write_json
from hybridlab.results.reader import write_parquet
from hybridlab.results.run_folder import NotebookRun
from hybridlab.results.writer import TableWriter
from hybridlab.units import GIB, MIB

SIZES = {"tiny": 0.15, "base": 0.29, "small": 0.97, "medium": 3.06, "turbo": 3.24}
CAPACITY = int(15.6 * GIB)
#: Of a race: as many as tell a difference.
ROUNDS = 5
RACES: dict[str, list[tuple[str, str, float]]] = {
    "04_sequential": [
        ("solo", "two-requests", 1.62),
        ("sequential", "plain", 1.21),
        ("sequential", "empty-cache", 1.25),
    ],
    "05_parallel": [
        ("solo", "two-requests", 1.60),
        ("sequential", "plain", 1.22),
        ("parallel", "threads", 1.05),
    ],
    "06_swapping": [
        ("solo", "two-requests", 1.63),
        ("sequential", "plain", 1.20),
        ("swapping", "reload-cached", 2.36),
    ],
}


def write_run(base: Path, *, notebooks: int = 8) -> Path:
    """Write a run of the first `notebooks` notebooks; fewer make it an incomplete one."""
    run = base / "synthetic-run"
    names = [parameters_of(f"0{number}").notebook for number in range(notebooks)]
    outcomes: dict[str, Any] = {}
    for name in names:
        writer = _part(run, name)
        _WRITERS.get(name, lambda writer, name: None)(writer, name)
        outcomes[name] = {"status": "completed", "reason": "", "seconds": 12.5}
    (run / "notebooks").mkdir(parents=True, exist_ok=True)
    for name in names:
        for suffix in (".html", ".ipynb"):
            (run / "notebooks" / f"{name}{suffix}").write_text("{}", encoding="utf-8")
    complete = notebooks == 8
    values = {"llm_model": "mini-3b", "llm_weights": "random", "trials": 6, "device": "auto"}
    manifest = run_manifest(
        params=values,
        started=now(),
        status="completed" if complete else "crashed",
        artefacts=[],
        base=run,
    )
    write_json(run / "manifest.json", {**manifest, "preset": "synthetic", "notebooks": outcomes})
    if complete:
        write_parquet(run)
        (run / "verdict.json").write_text(json.dumps(VERDICT), encoding="utf-8")
    return run


def change_cases(run: Path, experiment: str, values: dict[str, Any], *, every: int = 1) -> Path:
    """Give each case of an experiment these values, or of `every` so many in a notebook one."""
    for path in run.glob("parts/*/cases.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for at, row in enumerate(row for row in rows if row["experiment"] == experiment):
            row.update(values if at % every == 0 else {})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return run


VERDICT: dict[str, Any] = {
    "answer": "Whisper medium fits beside Voxtral with 2.8 GiB to spare; run them in parallel.",
    "recommendation": {
        "pair": "mini-3b + medium",
        "strategy": "parallel",
        "variant": "threads",
        "why": "lowest median latency with equal texts",
        "runner_up": "sequential/plain",
        "why_not": "0.16 s slower per request",
        "selection_instability": 0.03,
        "goals": [
            {
                "goal": "lowest latency",
                "arm": "parallel/threads",
                "figure": "1.05 s",
                "runner_up": "sequential/plain",
                "runner_up_figure": "1.21 s",
            }
        ],
    },
    "options": [
        {
            "option": "A",
            "asr_model": "medium",
            "asr_backend": "transformers",
            "asr_dtype": "float16",
            "is_default": True,
            "card": "t4",
            "total_bytes": 10.4 * GIB,
            "margin_bytes": 4.1 * GIB,
            "fits": True,
            "measured_peak_bytes": 12.8 * GIB,
            "measured_on": "cuda:0",
            "measured_llm_model": "mini-3b bfloat16",
            "measured_weights": "random",
        },
        {
            "option": "B",
            "asr_model": "large-v3",
            "planned_gb": 15.1,
            "measured": None,
            "verdict": "not measured here",
        },
        {"option": "C", "asr_model": "base", "planned_gb": 10.1, "verdict": "fits"},
    ],
}


def _part(run: Path, name: str) -> TableWriter:
    part = NotebookRun(
        notebook=name, run_dir=run, params=parameters_of(name).from_mapping({}), device="cuda:0"
    )
    assert isinstance(part.params, Params)
    part.folder.mkdir(parents=True)
    part.figures.mkdir(exist_ok=True)
    part.note("completed")
    return part.writer


def case(case_id: str, experiment: str, **values: Any) -> dict[str, Any]:
    """A row of `cases` with all that most cases share."""
    return {
        "run_id": "synthetic-run",
        "device": "cuda:0",
        "memory_limited": False,
        "case_id": case_id,
        "experiment": experiment,
        "strategy": "sequential",
        "variant": "plain",
        "round": 0,
        "llm_model": "mini-3b",
        "llm_weights": "random",
        "llm_dtype": "bfloat16",
        "asr_model": "medium",
        "asr_backend": "transformers",
        "asr_weights": "random",
        "asr_dtype": "float16",
        "status": "ok",
        "reason": "",
        "n_trials": 6,
        "capacity_bytes": CAPACITY,
        "sampler_interval_s": 0.0101,
        "sampler_longest_gap_s": 0.043,
        **values,
    }


def memory(whisper_gib: float) -> dict[str, Any]:
    """Memory columns of a case with a Whisper of so many GiB beside Voxtral."""
    base, voxtral = int(0.5 * GIB), int(8.71 * GIB)
    steady = int(base + voxtral + (whisper_gib + 0.05) * GIB)
    peak, load_peak = steady + int(0.62 * GIB), steady + int(0.2 * whisper_gib * GIB)
    return {
        "process_baseline_bytes": base,
        "llm_weights_bytes": voxtral,
        "asr_weights_bytes": int(whisper_gib * GIB),
        "load_peak_bytes": load_peak,
        "idle_bytes": steady,
        "request_peak_bytes": peak,
        "peak_bytes": max(peak, load_peak),
        "predicted_bytes": int(peak * 1.03),
        "margin_bytes": CAPACITY - max(peak, load_peak),
        "duration_s": 30.0,
        "load_s": 6.1,
    }


def _baseline(writer: TableWriter, name: str) -> None:
    writer.append(
        "cases",
        case("baseline", "baseline", strategy="solo", variant="two-requests", asr_model=None)
        | memory(0.0),
    )
    row = case("baseline", "baseline", strategy="solo", variant="two-requests")
    _serve(writer, row, 1.6, seed=9)


def _beside(writer: TableWriter, name: str) -> None:
    for size, whisper_gib in SIZES.items():
        row = case(f"beside-{size}", "co_residency", asr_model=size) | memory(whisper_gib)
        writer.append("cases", row)
        _ledger(writer, row)
    writer.append(
        "cases",
        case(
            "beside-large",
            "co_residency",
            asr_model="large-v3",
            status="skipped",
            reason="needs 16.4 GiB at its highest and 15.1 GiB may be used; a smaller dtype, or a "
            "card with more memory, would let it in",
        ),
    )


def _ledger(writer: TableWriter, row: dict[str, Any]) -> None:
    owners = {
        "base": row["process_baseline_bytes"],
        "llm weights": row["llm_weights_bytes"],
        "asr weights": row["asr_weights_bytes"],
        "request": row["request_peak_bytes"] - row["idle_bytes"],
        "unattributed": int(0.05 * GIB),
    }
    predicted = {"llm weights": 0.99, "asr weights": 1.0, "request": 1.31}
    for owner, n_bytes in owners.items():
        writer.with_common(case_id=row["case_id"], experiment=row["experiment"]).append(
            "ledgers",
            {
                "moment": "request_peak",
                "owner": owner,
                "bytes": n_bytes,
                "predicted_bytes": int(n_bytes * predicted[owner]) if owner in predicted else None,
            },
        )


def _limits(writer: TableWriter, name: str) -> None:
    for kind, values in {"audio_s": (30, 120, 480), "batch": (1, 4, 16)}.items():
        for value in values:
            peak = int((9.3 + 0.012 * value * (1 if kind == "audio_s" else 22)) * GIB)
            row = case(
                f"limit-{kind}-{value}", "request_scaling", strategy="solo", variant="two-requests"
            )
            row |= {"scaling_kind": kind, "scaling_value": float(value), "asr_model": None}
            row |= {"predicted_bytes": int(peak * 1.05), "margin_bytes": CAPACITY - peak}
            row |= {"request_peak_bytes": peak, "peak_bytes": peak, "idle_bytes": int(9.2 * GIB)}
            if kind == "audio_s" and value == 480:
                row |= {"status": "oom", "reason": "in phase request: CUDA out of memory"}
            writer.append("cases", row)
    _ageing(writer)


def _ageing(writer: TableWriter) -> None:
    """Growth without a remedy and under swapping; none with the others."""
    for strategy in ("sequential", "swapping"):
        for mitigation, creep in {"none": 0.9, "empty-cache": 0.0, "restart": 0.02}.items():
            case_id = f"ageing-{strategy}-{mitigation}"
            row = case(case_id, "soak", strategy=strategy, mitigation=mitigation) | memory(3.06)
            writer.append("cases", row)
            rng = np.random.default_rng(1)
            for cycle in range(60):
                reserved = 12 * GIB + (60 * (cycle > 0) + creep * cycle + rng.normal(0, 2)) * MIB
                writer.with_common(case_id=case_id, experiment="soak").append(
                    "cycles",
                    {
                        "strategy": strategy,
                        "mitigation": mitigation,
                        "cycle": cycle,
                        "request_id": f"clip-{cycle % 5}",
                        "latency_s": 1.2 + 0.05 * (cycle % 5) + rng.normal(0, 0.01),
                        "maintenance_s": 0.3 * (mitigation != "none" and cycle % 10 == 9),
                        "output_unchanged": True,
                        "allocated_bytes": 11 * GIB,
                        "reserved_bytes": int(reserved),
                        "external_bytes": 400 * MIB,
                        "resident_bytes": 3 * GIB,
                        "pinned_bytes": 0,
                        "peak_active_bytes": int(11.5 * GIB),
                        "peak_reserved_bytes": int(reserved),
                        "largest_block_bytes": 2 * GIB,
                        "fragmentation": 1 - 11.5 * GIB / reserved,
                    },
                )


def _race(writer: TableWriter, name: str) -> None:
    own = writer.with_common(case_id=f"alone-{name}", experiment="reference")
    own.append("cases", case(f"alone-{name}", "reference", strategy="reference", variant="both"))
    for model in ("llm", "asr"):
        for clip in range(4):
            own.append(
                "trials",
                _trial("reference", model, clip, 0.7 + 0.01 * clip, is_first_request=clip == 0),
            )
    for number in range(ROUNDS):
        for strategy, variant, seconds in RACES[name]:
            case_id = f"race-{strategy}-{variant}-{name}-r{number}"
            row = case(
                case_id, "strategy_comparison", strategy=strategy, variant=variant, round=number
            )
            row |= memory(0.0 if strategy == "solo" else 3.06)
            row |= {"throughput_rps": 1 / seconds * (1 + 0.01 * number)}
            if strategy == "solo":
                row["asr_model"] = None
            if strategy == "swapping":
                row |= {"asr_weights_bytes": None, "idle_bytes": int(9.3 * GIB)}
            writer.append("cases", row)
            _serve(writer, row, seconds, seed=number)
            _curve(writer, case_id)


def _trial(
    strategy: str,
    variant: str,
    clip: int,
    latency_s: float,
    *,
    is_first_request: bool,
    number: int = 0,
) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "variant": variant,
        "round": number,
        "request_id": f"clip{clip}-q" + ("-first" if is_first_request else ""),
        "clip_id": f"clip{clip}",
        "audio_s": 9.5,
        "latency_s": latency_s,
        "rtfx": 9.5 / latency_s,
        "is_first_request": is_first_request,
        "transcript": "the quick brown fox jumps" if clip else "the quick brown box jumps",
        "reference": "The quick brown fox jumps.",
        "question": "What jumps?",
        "answer": "a fox",
        "expected_answer": "a fox",
        "question_type": "object",
        "output_matches_reference": None if is_first_request or strategy == "reference" else True,
    }


def _serve(writer: TableWriter, row: dict[str, Any], seconds: float, *, seed: int) -> None:
    own = writer.with_common(case_id=row["case_id"], experiment=row["experiment"])
    strategy, variant = row["strategy"], row["variant"]
    rng = np.random.default_rng(seed)
    clock = 6.0
    for index in range(7):
        is_first_request = index == 0
        latency = seconds * (2.2 if is_first_request else 1.0) + abs(rng.normal(0, 0.04))
        trial = _trial(
            strategy, variant, index, latency, is_first_request=is_first_request, number=seed
        )
        own.append("trials", trial)
        swap = [("asr", "load", -0.02, 0.0), ("asr", "release", 0.49, 0.5)]
        for model, phase, start, end in (
            ("asr", "prepare", 0.0, 0.03),
            ("asr", "encode", 0.03, 0.2),
            ("asr", "decode", 0.2, 0.45),
            ("llm", "encode", 0.5, 0.62),
            ("llm", "prefill", 0.62, 0.7),
            ("llm", "decode", 0.7, 1.0),
            *(swap if strategy == "swapping" else []),
        ):
            shift = -0.45 if strategy == "parallel" and model == "llm" else 0.0
            own.append(
                "spans",
                {
                    "request_id": trial["request_id"],
                    "role": model,
                    "phase": phase,
                    "start_s": clock + (start + shift) * latency,
                    "end_s": clock + (end + shift) * latency,
                    "bytes": None,
                },
            )
        clock += latency + 0.1


def _curve(writer: TableWriter, case_id: str) -> None:
    own = writer.with_common(case_id=case_id, experiment="strategy_comparison")
    for model, start, end in (("llm", 0.4, 4.4), ("asr", 4.5, 5.8)):
        own.append(
            "spans",
            {
                "request_id": None,
                "role": model,
                "phase": "load",
                "start_s": start,
                "end_s": end,
                "bytes": None,
            },
        )
    for step in range(160):
        t_s = step * 0.1
        used = 0.5 + 8.7 * min(max(t_s - 0.4, 0) / 4, 1) + 3.1 * min(max(t_s - 4.5, 0) / 1.3, 1)
        used += 0.6 * (t_s > 6 and step % 12 < 7)
        own.append("samples", {"t_s": t_s, "source": "allocator", "bytes": int(used * GIB)})


#: A document about code has words that no line of a phone holds.
QUOTES = {"swap-25s": "WhisperForConditionalGeneration.from_pretrained('openai/whisper-medium')"}


def _claims(writer: TableWriter, name: str) -> None:
    for claim, verdict in {
        "medium-fits": "supported",
        "large-fits": "not testable here",
        "swap-25s": "refuted",
        "parallel-faster": "inconclusive",
    }.items():
        writer.append(
            "claims",
            {
                "case_id": "",
                "experiment": "verdict",
                "claim": claim,
                "expected": f"{claim.replace('-', ' ')} <here>: 13.2 GB",
                "measured": "12.84 GiB" if verdict != "not testable here" else None,
                "verdict": verdict,
                "reason": "read from the rows of 02" if verdict == "supported" else "see the rows",
                "quote": QUOTES.get(claim, f"says {claim} <there>"),
                "line": 15,
                "basis": "cases: beside-medium",
            },
        )


_WRITERS: dict[str, Any] = {
    "01_voxtral_alone": _baseline,
    "02_whisper_beside_voxtral": _beside,
    "03_memory_limits": _limits,
    "04_sequential": _race,
    "05_parallel": _race,
    "06_swapping": _race,
    "07_verdict": _claims,
}
