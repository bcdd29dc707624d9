"""Tables of bytes: per case, by owner, and with each attention kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hybridlab import catalog, planner
from hybridlab.analysis.texts import is_cut
from hybridlab.reporting import labels
from hybridlab.reporting.rows import case_labels, cases_of, complete_tables, is_first, measured
from hybridlab.units import MIB


@complete_tables
def memory_table(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per case: where its bytes went, in GiB, and what became of it."""
    return pd.DataFrame(
        [
            {
                "case": name,
                "process GiB": labels.gib(row.get("process_baseline_bytes")),
                "Voxtral GiB": labels.gib(row.get("llm_weights_bytes")),
                "Whisper GiB": labels.gib(row.get("asr_weights_bytes")),
                "load peak GiB": labels.gib(row.get("load_peak_bytes")),
                "idle GiB": labels.gib(row.get("idle_bytes")),
                "request peak GiB": labels.gib(row.get("request_peak_bytes")),
                "margin GiB": labels.gib(row.get("margin_bytes")),
                "status": row["status"],
                "reason": row.get("reason") or labels.EMPTY,
            }
            for name, (_, row) in zip(case_labels(cases), cases.iterrows(), strict=True)
        ]
    )


@complete_tables
def ledger_table(ledgers: pd.DataFrame) -> pd.DataFrame:
    """Each owner's bytes at each moment in MiB beside what the planner predicted, and the error.

    The `sum` of a moment is what the case used then, with the unattributed share.
    """
    columns = ["moment", "owner", "MiB", "predicted MiB", "error"]
    inside = ledgers[ledgers["in_process"].ne(False)]  # older runs do not say
    rows = []
    for (_, moment), own in inside.groupby(["case_id", "moment"], sort=False):
        used = own["bytes"].sum()
        rest = own.loc[own["owner"] == "unattributed", "bytes"].sum()
        share = f" ({labels.percent(rest / used)} unattributed)" if used else ""
        total: dict[Any, Any] = {"owner": f"sum{share}", "bytes": used}
        name = labels.MOMENTS.get(str(moment), str(moment))
        rows += [{"moment": name, **_owner_row(row)} for row in [*own.to_dict("records"), total]]
    return pd.DataFrame(rows, columns=columns)


@complete_tables
def of_largest(ledgers: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """The ledger rows of the case that used most."""
    largest = measured(cases).sort_values("request_peak_bytes").tail(1)
    own: pd.DataFrame = ledgers[ledgers["case_id"].isin(largest["case_id"])]
    return own


def _owner_row(row: Mapping[Any, Any]) -> dict[str, str]:
    held, predicted = float(row["bytes"]), labels.number_of(row, "predicted_bytes")
    comparable = predicted > 0 and held > 0
    return {
        "owner": row["owner"],
        "MiB": labels.number(held / MIB),
        "predicted MiB": labels.number(predicted / MIB),
        "error": labels.percent(held / predicted - 1 if comparable else None, signed=True),
    }


@complete_tables
def attention_table(cases: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Each attention kernel on each length of audio: bytes above rest, time, and whether it said
    the same as `auto`."""
    columns = [
        "audio s",
        "attention",
        "request MiB",
        "predicted MiB",
        "latency s",
        "same tokens",
        "status",
    ]
    rows: list[dict[str, Any]] = []
    for _, case in cases_of(cases, "attention").iterrows():
        own = trials[(trials["case_id"] == case["case_id"]) & ~is_first(trials)]
        row = {"attention": case["attention"], "status": case["reason"] or case["status"]}
        row["audio s"] = labels.number(case.get("audio_s"))
        if case["status"] == "ok":
            row["request MiB"] = f"{case['request_bytes'] / MIB:,.0f}"
            row["predicted MiB"] = f"{(case['predicted_bytes'] - case['idle_bytes']) / MIB:,.0f}"
            row["latency s"] = labels.number(own["latency_s"].median())
            row["same tokens"] = _same_as_auto(case, cases, trials)
        rows.append(row)
    return pd.DataFrame(rows, columns=columns).fillna(labels.EMPTY)


def _same_as_auto(case: pd.Series, cases: pd.DataFrame, trials: pd.DataFrame) -> str:
    twins = cases_of(cases, "attention")
    twins = twins[(twins["audio_s"] == case["audio_s"]) & (twins["attention"] == "auto")]
    auto = twins["case_id"]
    said = trials["answer_tokens"].mask(is_cut(trials, "answer")).set_axis(trials["case_id"])
    if auto.empty or auto.iloc[0] not in said.index:
        return labels.EMPTY
    own, other = (said.loc[[name]].iloc[0] for name in (case["case_id"], auto.iloc[0]))
    if not isinstance(own, list) or not isinstance(other, list):  # not kept, or cut short
        return labels.EMPTY
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
            row[f"{name}, predicted GiB"] = labels.gib(n_bytes)
        rows.append(row)
    return pd.DataFrame(rows)
