"""What a run says: every claim judged, a recommendation, the options A, B, C, and one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hybridlab import catalog, planner
from hybridlab.analysis.arms import is_value, main_pair, numbers
from hybridlab.analysis.case_status import WITH_BYTES, invalid_words
from hybridlab.analysis.claims.claims_file import Claim
from hybridlab.analysis.claims.evidence import ClaimResult, RunData
from hybridlab.analysis.claims.rules import RULES
from hybridlab.analysis.pick import pick, recognizer_name
from hybridlab.analysis.recommendation import Recommendation, Requirements, recommend
from hybridlab.analysis.stats import holm
from hybridlab.catalog import Card
from hybridlab.catalog.device_names import simulated_card
from hybridlab.errors import RunFolderError
from hybridlab.planner import PairPlan
from hybridlab.results.manifest import read_manifest, write_json
from hybridlab.results.reader import part_folders, run_table
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GB, format_bytes, format_seconds

#: The options of the document: which Whisper beside Voxtral on one 15 GB T4.
OPTIONS = {"A": "medium", "B": "large-v3", "C": "base"}
TARGET = "t4"
#: What stands in an option of the planner's own figures.
PLANNED = (
    *("asr_model", "asr_backend", "asr_dtype", "llm_model", "llm_dtype", "card"),
    *("total_bytes", "capacity_bytes", "utilization", "margin_bytes", "fits"),
)
NOTHING_KEEPS = "No way of sharing that was measured keeps what is asked for."


def judge(
    claims: Iterable[Claim],
    tables: Mapping[str, pd.DataFrame],
    *,
    device: str,
    card: str | None,
) -> list[dict[str, Any]]:
    """Rows of the table `claims`, one per claim.

    `device` is where the rows were measured ('cpu', 'cuda:0') and `card` the catalog's name of the
    card that is there (None on a CPU), not of one that was merely asked for: a claim about a T4 is
    judged only on rows of a T4, elsewhere 'not testable here' with what the planner predicts.
    """
    run = RunData(tables=tables, device=device, card=card)
    claims = list(claims)
    results = [RULES[claim.rule.test].evaluate(run, claim.needs, claim.rule) for claim in claims]
    return [
        {
            "claim": claim.id,
            **claim.model_dump(include={"quote", "line", "kind", "expected"}),
            **{name: value for name, value in asdict(found).items() if name != "chance"},
        }
        for claim, found in zip(claims, together(results), strict=True)
    ]


def together(found: list[ClaimResult]) -> list[ClaimResult]:
    """Verdicts that hold though so many were looked for at once; the others are inconclusive."""
    chances = {n: one.chance for n, one in enumerate(found) if one.chance is not None}
    held = holm(chances)
    lack = f"not clear enough where {len(chances)} claims are judged at once"
    return [
        replace(one, verdict="inconclusive", reason=f"{lack}: {one.reason}")
        if n in chances.keys() - held and one.verdict != "inconclusive"
        else one
        for n, one in enumerate(found)
    ]


# --------------------------------------------------------------------------------------- options


def options_table(name: str, cases: pd.DataFrame) -> list[dict[str, Any]]:
    """Options A, B, C on a card of this name: one row per backend x dtype, predicted figures first.

    `fits` is predicted for that card and always stands with `source: predicted`; the
    `measured_*` figures are those of a `beside` case of this run with the same size, backend and
    dtype, and of the device that `measured_on` names, which need not be that card.
    """
    card, rows = catalog.card(name), []
    for option, size in OPTIONS.items():
        ran = cases[(cases["experiment"] == "co_residency") & (cases["asr_model"] == size)]
        plans = planner.plan_table(card, sizes=(size,))
        rows += [_option_row(option, plan, ran) for plan in plans + _others(card, size, ran, plans)]
    return rows


def _others(card: Card, size: str, ran: pd.DataFrame, plans: list[PairPlan]) -> list[PairPlan]:
    """Plans for combinations that were measured though the card does not run them natively."""
    known = {(plan.asr_backend, plan.asr_dtype) for plan in plans}
    measured = {(row.asr_backend, row.asr_dtype) for row in ran.itertuples()}
    return [
        _plan(card, size, str(backend), str(dtype)) for backend, dtype in sorted(measured - known)
    ]


def _option_row(option: str, plan: PairPlan, cases: pd.DataFrame) -> dict[str, Any]:
    return {
        "option": option,
        **{name: getattr(plan, name) for name in PLANNED},
        "is_default": plan.asr_dtype == catalog.backend(plan.asr_backend).default_dtype,
        "source": "predicted",
        "planned_gb": round(plan.total_bytes / GB, 1),
        **_measured(plan, cases),
    }


def _measured(plan: PairPlan, cases: pd.DataFrame) -> dict[str, Any]:
    """This run's figures for the same combination; empty values where it was not measured."""
    same = cases["asr_backend"].eq(plan.asr_backend) & cases["asr_dtype"].eq(plan.asr_dtype)
    ran = cases[same & cases["status"].isin([*WITH_BYTES, "oom"])]
    if ran.empty:
        names = ("status", "on", "llm_model", "weights", "peak_bytes")
        return {"measured": None, **{f"measured_{name}": None for name in names}}
    row = ran.iloc[-1]
    limited = is_value(ran["memory_limited"], True).iloc[-1]
    where = f"{row['device']}{' (memory-limited)' if limited else ''}"
    peak_bytes = float(numbers(ran, "peak_bytes").iloc[-1])
    peak = "" if math.isnan(peak_bytes) else f", peak {format_bytes(peak_bytes)}"
    return {
        "measured": f"{row['status']} on {where}{peak}",
        "measured_status": row["status"],
        "measured_on": where,
        "measured_llm_model": f"{row['llm_model']} {row['llm_dtype']}",
        "measured_weights": f"{row['asr_weights']}",
        "measured_peak_bytes": None if math.isnan(peak_bytes) else peak_bytes,
    }


# ---------------------------------------------------------------------------------------- answer


def answer_sentence(
    cases: pd.DataFrame,
    recommendation: Recommendation | None,
    *,
    device: str,
    card: str | None = None,
    target: str = TARGET,
) -> str:
    """The run in one sentence: what won on this device with these weights, and what the planner
    predicts for the target card."""
    where = f"On {_device_text(device, card)} with {_pair_text(cases)}"
    if recommendation is None:
        lost = invalid_words(cases[cases["experiment"] == "strategy_comparison"])
        why = lost or "no way with a Whisper that nothing bars was measured beside a control"
        found = f"{where}, {why}"
    else:
        found = f"{where}, {_winner_text(recommendation)}"
    return f"{found}; {_foresight_text(catalog.card(target))}."


def _device_text(device: str, card: str | None) -> str:
    if device == "cpu":
        return "this CPU"
    if simulated := simulated_card(device):
        return f"a simulated {simulated.title}"
    known = catalog.CARDS.get(card or "")
    return f"this {known.title}" if known else f"this device ({device})"


def _pair_text(cases: pd.DataFrame) -> str:
    race = cases[cases["experiment"] == "strategy_comparison"]
    rows = main_pair(race if len(race) else cases)
    rows = rows[rows["llm_model"].notna()]
    if rows.empty:
        return "no pair"
    paired = rows[rows["asr_model"].notna()]
    row = (paired if len(paired) else rows).iloc[0]
    if row["llm_model"] == "pocket":
        return "the pocket pair (pocket weights)"
    sources = dict.fromkeys([row["llm_weights"], row["asr_weights"]])
    named = " and ".join(str(source) for source in sources if not pd.isna(source))
    whisper = f" and Whisper {row['asr_model']}" if len(paired) else ""
    return f"Voxtral {row['llm_model']}{whisper} ({named} weights)"


def _winner_text(found: Recommendation) -> str:
    name = f"{found.strategy}/{found.variant}"
    if found.by_bytes:
        what, figures = "smallest", f"peak {format_bytes(found.peak_bytes)}; {NO_TIMES}"
    else:
        what, figures = "fastest", f"median {format_seconds(found.median_s)}"
    figures += f", n = {found.n} {'case' if found.n == 1 else 'cases'}"
    if not found.runner_up:
        said = f"{name} is the only way with a Whisper that was measured ({figures})"
    elif found.few:
        said = (
            f"{name} is the {what} way with a Whisper so far, in too few rounds to tell ({figures})"
        )
    elif found.tie:
        said = f"{name} ties with {found.runner_up} and is picked for its memory ({figures})"
    else:
        said = f"{name} is the {what} way with a Whisper ({figures})"
    return f"{found.caveats}: {said}" if found.caveats else said


def _foresight_text(card: Card) -> str:
    """Which Whisper the card would have."""
    title = card.title.removeprefix("NVIDIA ")
    best = pick(card)
    if best is None:
        return f"on a {title} the planner predicts that no Whisper fits beside Voxtral-Mini-3B"
    return (
        f"on a {title} the planner picks {recognizer_name(best)} beside Voxtral-Mini-3B in "
        f"{best.llm_dtype}: predicted to fit with {format_bytes(best.margin_bytes)} to spare"
    )


def _plan(card: Card, size: str, backend: str, dtype: str) -> PairPlan:
    return planner.plan_pair(
        card, catalog.whisper(size), catalog.voxtral("mini-3b"), backend=backend, dtype=dtype
    )


# ----------------------------------------------------------------------------------------- files


def write_verdict(
    run_dir: Path,
    cases: pd.DataFrame,
    found: Recommendation | None,
    *,
    device: str,
    card: str | None = None,
    target: str = TARGET,
) -> dict[str, Any]:
    """Write `<run>/verdict.json` about a recommendation and return what it holds."""
    verdict = {
        "answer": answer_sentence(cases, found, device=device, card=card, target=target),
        "recommendation": found.as_dict() if found else None,
        "options": options_table(target, cases),
        "device": device,
        "card": card,
        "target": target,
    }
    write_json(run_dir / "verdict.json", verdict)
    return verdict


def rewrite_verdict(run_dir: Path) -> Path | None:
    """Write an older run's `verdict.json` anew, from its rows and under the constraints that its
    manifests hold; None where it has none."""
    path = run_dir / "verdict.json"
    if not path.is_file():
        return None
    told = _read(path)
    cases, trials = (run_table(run_dir, table) for table in ("cases", "trials"))
    params: list[dict[str, Any]] = [
        read_manifest(folder).get("params", {}) for folder in part_folders(run_dir)
    ]
    asked = next((one for one in params if "min_margin_bytes" in one), {})
    names = [field.name for field in fields(Requirements)]
    constraints = Requirements.asked(**{name: asked[name] for name in names if name in asked})
    write_verdict(
        run_dir,
        cases,
        recommend(cases, trials, constraints),
        device=_device(told, cases),
        card=told.get("card"),
        target=told.get("target") or TARGET,
    )
    return path


def read_verdict(run_dir: Path, constraints: Requirements | None = None) -> dict[str, Any]:
    """What `write_verdict` wrote, under other constraints computed anew from the run's rows, with
    every claim. `RunFolderError` where the folder holds no verdict."""
    path = run_dir / "verdict.json"
    if not path.is_file():
        raise RunFolderError(
            f"{run_dir} holds no verdict.json; name the folder of a run whose notebook 07 has "
            "completed, as in outputs/"
        )
    found = _read(path)
    if constraints is not None:
        cases, trials = (run_table(run_dir, table) for table in ("cases", "trials"))
        chosen = recommend(cases, trials, constraints)
        found["recommendation"] = chosen.as_dict() if chosen else None
        found["answer"] = NOTHING_KEEPS
        if chosen:
            found["answer"] = answer_sentence(
                cases,
                chosen,
                device=_device(found, cases),
                card=found.get("card"),
                target=found.get("target") or TARGET,
            )
    claims = run_table(run_dir, "claims")
    return {**found, "claims": claims.to_dict("records")}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError:
        raise RunFolderError(f"{path} is damaged; write it again with --resume") from None


def _device(told: Mapping[str, Any], cases: pd.DataFrame) -> str:
    return told.get("device") or str(cases["device"].iloc[0])  # older runs wrote none
