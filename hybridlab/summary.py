"""Tables that people read: rows of a run, summarised with units in their headings. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from hybridlab import catalog, planner
from hybridlab.stats import Interval, bootstrap_interval, is_stable, word_error_rate
from hybridlab.units import GIB, MIB, format_bytes

EMPTY = "–"


def arm_name(strategy: str, variant: str) -> str:
    """'sequential / plain'."""
    return f"{strategy} / {variant}"


def race_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of the races without first requests, with a column `arm`."""
    if trials.empty:
        return trials.assign(arm=pd.Series(dtype=str))
    kept = trials[(trials["experiment"] == "race") & ~trials["first"].astype(bool)]
    return kept.assign(
        arm=[arm_name(s, v) for s, v in zip(kept["strategy"], kept["variant"], strict=True)]
    )


def memory_table(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per case: where its bytes went, in GiB, and what became of it."""
    return pd.DataFrame(
        [
            {
                "case": case_label(row),
                "base GiB": _gib(row.get("base_bytes")),
                "Voxtral GiB": _gib(row.get("voxtral_bytes")),
                "Whisper GiB": _gib(row.get("whisper_bytes")),
                "load peak GiB": _gib(row.get("load_peak_bytes")),
                "steady GiB": _gib(row.get("steady_bytes")),
                "request peak GiB": _gib(row.get("request_peak_bytes")),
                "margin GiB": _gib(row.get("margin_bytes")),
                "status": row["status"],
                "reason": row.get("reason") or EMPTY,
            }
            for _, row in cases.iterrows()
        ]
    )


def case_label(row: pd.Series) -> str:
    """What sets a case apart in a table or plot of its experiment."""
    label = _LABELS.get(row["experiment"])
    return label(row) if label else arm_name(row["strategy"], row["variant"])


def _limit_label(row: pd.Series) -> str:
    unit = "s of audio" if row["limit_kind"] == "audio_s" else "in a batch"
    return f"{row['limit_value']:g} {unit}"


def _edge_label(row: pd.Series) -> str:
    return f"{ASK_WORDS.get(row['ask'], row['ask'])}, {arm_name(row['strategy'], row['variant'])}"


_LABELS: dict[str, Callable[[pd.Series], str]] = {
    "beside": lambda row: f"{row['whisper_size']} ({row['whisper_dtype']})",
    "loading": lambda row: f"{row['whisper_size']}, {row['load_order']}, {row['load_path']}",
    "limits": _limit_label,
    "edge": _edge_label,
    "attention": lambda row: f"{row['attention']}, {row['audio_s']:g} s of audio",
    "ageing": lambda row: f"remedy: {row['remedy']}",
}


def latency_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race: latency, throughput, peak, parity, quality."""
    rows = []
    measured = race_trials(trials)
    for arm, own in measured.groupby("arm", sort=False):
        strategy, variant = str(arm).split(" / ")
        arm_cases = cases[
            (cases["experiment"] == "race")
            & (cases["strategy"] == strategy)
            & (cases["variant"] == variant)
        ]
        first = trials[
            (trials["experiment"] == "race")
            & (trials["strategy"] == strategy)
            & (trials["variant"] == variant)
            & trials["first"].astype(bool)
        ]
        rows.append(
            {
                "strategy": arm,
                "n": len(own),
                "median s": interval(bootstrap_interval(own["latency_s"])),
                "p95 s": f"{np.quantile(own['latency_s'], 0.95):.3g}",
                "first s": number(first["latency_s"].median() if len(first) else None),
                "RTFx": number(float(own["audio_s"].sum() / own["latency_s"].sum())),
                "requests/s": number(arm_cases["throughput_rps"].median()),
                "peak GiB": _gib(_highest(arm_cases)),
                "parity": parity_text(own["parity"]),
                "WER": percent(_wer(own)),
                "answers right": percent(answer_accuracy(own)),
                "stable": "yes" if is_stable(list(own["latency_s"])) else "no",
            }
        )
    return pd.DataFrame(rows)


def _highest(cases: pd.DataFrame) -> float | None:
    columns = [c for c in ("load_peak_bytes", "request_peak_bytes") if c in cases]
    values = cases[columns].to_numpy(dtype=float) if columns else np.empty(0)
    return float(np.nanmax(values)) if values.size and not np.isnan(values).all() else None


def _wer(trials: pd.DataFrame) -> float | None:
    said = trials[trials["transcript"].notna() & trials["reference"].notna()]
    return word_error_rate(list(said["reference"]), list(said["transcript"]))


def same_answer(expected: str, given: str) -> bool:
    """Whether an answer is the expected one, case and punctuation ignored."""
    return _words(expected) == _words(given)


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def answer_accuracy(trials: pd.DataFrame) -> float | None:
    """Share of right answers among those whose answer is known; None without any."""
    known = trials[trials["answer"].notna() & trials["expected_answer"].notna()]
    if known.empty:
        return None
    pairs = zip(known["expected_answer"], known["answer"], strict=True)
    return float(np.mean([same_answer(expected, given) for expected, given in pairs]))


def quality_table(trials: pd.DataFrame) -> pd.DataFrame:
    """WER and answer accuracy of each tenant alone (experiment `alone`)."""
    alone = trials[trials["experiment"] == "alone"]
    return pd.DataFrame(
        [
            {
                "tenant": tenant,
                "clips": own["clip_id"].nunique(),
                "WER": percent(_wer(own)),
                "answers right": percent(answer_accuracy(own)),
                "median s": interval(
                    bootstrap_interval(own[~own["first"].astype(bool)]["latency_s"])
                ),
            }
            for tenant, own in alone.groupby("variant", sort=False)
        ]
    )


def phase_table(spans: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each phase of each tenant."""
    if spans.empty:
        return pd.DataFrame(columns=["tenant", "phase", "n", "median s"])
    seconds = spans.assign(seconds=spans["end_s"] - spans["start_s"])
    return pd.DataFrame(
        [
            {
                "tenant": t,
                "phase": p,
                "n": len(own),
                "median s": interval(bootstrap_interval(own["seconds"])),
            }
            for (t, p), own in seconds.groupby(["tenant", "phase"], sort=False)
        ]
    )


def ledger_table(ledgers: pd.DataFrame) -> pd.DataFrame:
    """Each owner's bytes at each moment in MiB beside what the planner predicted, and the error.

    The `sum` of a moment is what the case used then, with the share that nobody claims.
    """
    columns = ["moment", "owner", "MiB", "predicted MiB", "error"]
    if ledgers.empty:
        return pd.DataFrame(columns=columns)
    rows = []
    for (_, moment), own in ledgers.groupby(["case_id", "moment"], sort=False):
        inside = own[own["inside"].astype(bool)] if "inside" in own else own
        rows += [_owner_row(moment, row) for _, row in inside.iterrows()]
        used = inside["bytes"].sum()
        rest = inside[inside["owner"] == "unexplained"]["bytes"].sum()
        rows.append(
            {
                "moment": _moment_words(moment),
                "owner": f"sum ({rest / used:.1%} unexplained)" if used else "sum",
                "MiB": f"{used / MIB:,.1f}",
                "predicted MiB": EMPTY,
                "error": EMPTY,
            }
        )
    return pd.DataFrame(rows, columns=columns)


def of_largest(ledgers: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """The ledger rows of the case that used most."""
    fine = cases[cases["status"] == "ok"]
    if fine.empty or ledgers.empty:
        return ledgers.head(0)
    largest = fine.sort_values("request_peak_bytes").iloc[-1]
    own: pd.DataFrame = ledgers[ledgers["case_id"] == largest["case_id"]]
    return own


def _owner_row(moment: Any, row: pd.Series) -> dict[str, str]:
    known = not pd.isna(row["predicted_bytes"])
    predicted = float(row["predicted_bytes"]) if known else math.nan
    off = row["bytes"] / predicted - 1 if known and predicted > 0 and row["bytes"] > 0 else None
    return {
        "moment": _moment_words(moment),
        "owner": row["owner"],
        "MiB": f"{row['bytes'] / MIB:,.1f}",
        "predicted MiB": f"{predicted / MIB:,.1f}" if known else EMPTY,
        "error": EMPTY if off is None else f"{off:+.1%}",
    }


def _moment_words(moment: Any) -> str:
    return str(moment).replace("_", " ")


def attention_table(cases: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Each attention kernel on each length of audio: bytes above rest, time, and whether it said
    the same as `auto`."""
    columns = ["audio s", "attention", "request MiB", "predicted MiB", "s", "same tokens", "status"]
    rows: list[dict[str, Any]] = []
    for _, case in cases[cases["experiment"] == "attention"].iterrows():
        own = trials[(trials["case_id"] == case["case_id"]) & ~trials["first"].astype(bool)]
        row = {"attention": case["attention"], "status": case["reason"] or case["status"]}
        row["audio s"] = number(case.get("audio_s"))
        if case["status"] == "ok":
            above = case["request_peak_bytes"] - case["steady_bytes"]
            row["request MiB"] = f"{above / MIB:,.0f}"
            row["predicted MiB"] = f"{(case['predicted_bytes'] - case['steady_bytes']) / MIB:,.0f}"
            row["s"] = number(own["latency_s"].median())
            row["same tokens"] = _same_as_auto(case, cases, trials)
        rows.append(row)
    return pd.DataFrame(rows, columns=columns).fillna(EMPTY)


def _same_as_auto(case: pd.Series, cases: pd.DataFrame, trials: pd.DataFrame) -> str:
    twins = cases[(cases["experiment"] == "attention") & (cases["audio_s"] == case["audio_s"])]
    auto = twins[twins["attention"] == "auto"]["case_id"]
    said = trials.set_index("case_id")["answer_tokens"]
    if auto.empty or auto.iloc[0] not in said.index:
        return EMPTY
    own, other = (list(said.loc[[name]].iloc[0]) for name in (case["case_id"], auto.iloc[0]))
    return "yes" if own == other else "no"


def attention_plan(card: str = "t4", voxtral: str = "mini-3b") -> pd.DataFrame:
    """Predicted bytes of one request above the weights under each kernel: 30 s, 5 and 30 min."""
    known, model = catalog.card(card), catalog.voxtral(voxtral)
    dtype = planner.default_voxtral_dtype(known)
    rows = []
    for kind in ("math", "efficient", "expanded_kv", "flash"):
        row: dict[str, Any] = {"attention": kind}
        for name, seconds in (("30 s", 30.0), ("5 min", 300.0), ("30 min", 1800.0)):
            n_bytes = planner.voxtral_request_bytes(
                model, planner.Request(audio_s=seconds), dtype=dtype, card=known, attention=kind
            )
            row[f"{name}, predicted"] = format_bytes(n_bytes)
        rows.append(row)
    return pd.DataFrame(rows)


def least_rooms(probes: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Of every squeezed request the least room that it survived with: case_id, strategy, repeat,
    room_bytes."""
    columns = ["case_id", "strategy", "repeat", "room_bytes"]
    if probes.empty or "ask" not in probes:
        return pd.DataFrame(columns=columns)
    squeezed = probes[(probes["ask"] == "squeeze") & probes["survived"].astype(bool)]
    least = squeezed.groupby(["case_id", "repeat"], sort=False, as_index=False)["value"].min()
    names = cases[["case_id", "strategy"]].drop_duplicates()
    rooms: pd.DataFrame = least.merge(names, on="case_id").rename(columns={"value": "room_bytes"})
    return rooms[columns]


ASK_WORDS = {"audio_s": "longest audio", "batch": "largest batch", "beams": "most beams"}


def edge_table(cases: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """What was found at the edge: one row for each question, strategy and step of the ladder."""
    rows: list[dict[str, Any]] = []
    edge = cases[(cases["experiment"] == "edge") & (cases["status"] == "ok")]
    for _, case in edge.iterrows():
        own = probes[probes["case_id"] == case["case_id"]] if len(probes) else probes
        failures = own[~own["survived"].astype(bool)] if len(own) else own
        row = {"asked": ASK_WORDS.get(case["ask"], case["ask"]), "strategy": case["strategy"]}
        row |= {"found": _edge_words(case, cases, probes), "probes": len(own)}
        phases = failures["phase"].dropna().value_counts() if len(failures) else pd.Series()
        row["fails in"] = str(phases.index[0]) if len(phases) else EMPTY
        rows.append(row)
    return pd.DataFrame(rows, columns=["asked", "strategy", "found", "probes", "fails in"])


def _edge_words(case: pd.Series, cases: pd.DataFrame, probes: pd.DataFrame) -> str:
    if case["ask"] == "squeeze":
        rooms = least_rooms(probes, cases)
        own = bootstrap_interval(rooms[rooms["case_id"] == case["case_id"]]["room_bytes"] / MIB)
        return f"{interval(own)} MiB above the resident pair"
    if case["ask"] == "ladder":
        count = int(case["steps_down"])
        return f"{case['served_by']} after {count} {'step' if count == 1 else 'steps'} down"
    value, unit = case["largest_value"], " s" if case["ask"] == "audio_s" else ""
    if not value:
        return "not even the smallest"
    return f"{value:g}{unit}" + ("" if case["reached"] else " and more: nothing failed")


# ---------------------------------------------------------------------------------------- pieces


def interval(estimate: Interval) -> str:
    """'0.41 (0.39–0.44)'; without bounds where a single value has none."""
    if estimate.n == 0:
        return EMPTY
    if math.isnan(estimate.low):
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} ({estimate.low:.3g}–{estimate.high:.3g})"


def number(value: float | None) -> str:
    return EMPTY if value is None or pd.isna(value) else f"{value:.3g}"


def percent(value: float | None) -> str:
    return EMPTY if value is None or pd.isna(value) else f"{100 * value:.1f} %"


def parity_text(parity: Iterable[Any]) -> str:
    """'12 of 12': how many trials said what the tenants say alone."""
    known = [bool(p) for p in parity if p is not None and not pd.isna(p)]
    return f"{sum(known)} of {len(known)}" if known else EMPTY


def _gib(n_bytes: float | None) -> str:
    return EMPTY if n_bytes is None or pd.isna(n_bytes) else f"{n_bytes / GIB:.2f}"
