"""Tables of bytes: per case, by owner, and with each attention kernel."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from hybridlab import catalog, planner
from hybridlab.reporting.tables.words import EMPTY, case_label, gib, number
from hybridlab.units import MIB, format_bytes


def memory_table(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per case: where its bytes went, in GiB, and what became of it."""
    return pd.DataFrame(
        [
            {
                "case": case_label(row),
                "base GiB": gib(row.get("base_bytes")),
                "Voxtral GiB": gib(row.get("voxtral_bytes")),
                "Whisper GiB": gib(row.get("whisper_bytes")),
                "load peak GiB": gib(row.get("load_peak_bytes")),
                "steady GiB": gib(row.get("steady_bytes")),
                "request peak GiB": gib(row.get("request_peak_bytes")),
                "margin GiB": gib(row.get("margin_bytes")),
                "status": row["status"],
                "reason": row.get("reason") or EMPTY,
            }
            for _, row in cases.iterrows()
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
            row["request MiB"] = f"{case['request_bytes'] / MIB:,.0f}"
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
    own, other = (said.loc[[name]].iloc[0] for name in (case["case_id"], auto.iloc[0]))
    if not isinstance(own, list) or not isinstance(other, list):  # not kept
        return EMPTY
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
