"""The page's tables of results: the summary tables with badges, links and a run's verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels, tables
from hybridlab.reporting.html.figures import number_of
from hybridlab.reporting.html.page import Block
from hybridlab.reporting.html.traces import anchor, case_names
from hybridlab.reporting.html.view_model import TONES, Run, Table, badge, link, table
from hybridlab.reporting.labels import EMPTY, is_missing, text
from hybridlab.reporting.rows import (
    CONTROL,
    RACE,
    arm_intervals,
    arms_of,
    cases_of,
    is_first,
    present,
    race_standings,
    worst_per_label,
)
from hybridlab.results.schema import TIMELINES
from hybridlab.units import GB, counted

# --------------------------------------------------------------------------------------- options


def options_block(run: Run) -> Block:
    """The options, and every combination under them where there are more."""
    some, every = options_table(run), options_table(run, every=True)
    return [some, every] if len(every.rows) > len(some.rows) else some


def options_table(run: Run, *, every: bool = False) -> Table:
    """Options A, B, C: what the original plan said, what is predicted for its card, and what was
    measured on this device. Combinations that are neither a backend's default nor measured stand
    only in the table of `every` one."""
    given = run.verdict.get("options")
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    plans = _original_plans(run)
    return table(
        [
            {
                "Option": text(item.get("option")),
                "Whisper": text(item.get("asr_model")),
                "Original plan": plans.get(text(item.get("option")), EMPTY),
                "Kept as": _join(item, "asr_backend", "asr_dtype")
                + (" (default)" if item.get("is_default") else ""),
                "Planned on": text(item.get("card")),
                "Predicted GiB": labels.gib(_predicted_bytes(item)),
                "Margin GiB": labels.gib(item.get("margin_bytes")),
                "Verdict": badge("fits" if item["fits"] else "does not fit")
                if isinstance(item.get("fits"), bool)
                else text(item.get("verdict")),
                "Measured": _measured(item),
            }
            for item in items
            if every or item.get("is_default") is not False or not is_missing(item.get("measured"))
        ],
        empty="Options A, B and C were not judged: 07_verdict did not finish.",
        fold=f"All {len(items)} combinations of backend and dtype" if every else "",
    )


def _predicted_bytes(item: dict[str, Any]) -> Any:
    """Some versions kept a rounded figure alone."""
    planned: Any = item.get("planned_gb")
    return item.get("total_bytes", None if is_missing(planned) else planned * GB)


def _original_plans(run: Run) -> dict[str, str]:
    """'fits at 11.6 of 15 GB' by option, from the claims option-a-fits and so on."""
    claims = run.tables["claims"]
    names = claims["claim"].astype(str).str.extract("^option-(.+)-fits$", expand=False)
    return {
        str(name).upper(): text(expected)
        for name, expected in zip(names, claims["expected"], strict=True)
        if not is_missing(name)
    }


def _measured(item: dict[str, Any]) -> str:
    """'12.90 GiB on cuda:0 beside mini-3b float16, random weights', as far as it is known."""
    value: Any = item.get("measured_peak_bytes", item.get("measured"))
    if is_missing(value) or isinstance(value, (str, list, dict)):
        return text(value)
    parts = {"measured_on": " on {}", "measured_llm_model": " beside {}"}
    parts["measured_weights"] = ", {} weights"
    known = [form.format(item[key]) for key, form in parts.items() if not is_missing(item.get(key))]
    return labels.n_bytes(value) + "".join(known)


def _join(item: Any, *names: str) -> str:
    """The values that are there, one after the other."""
    return " ".join(filter(None, (text(item.get(name), empty="") for name in names))) or EMPTY


# ---------------------------------------------------------------------------------- memory, cases


def memory_table(run: Run) -> Table:
    """The three moments and the margin of each Whisper size beside Voxtral."""
    rows = worst_per_label(cases_of(run.cases, "co_residency", "baseline"))
    shown = [
        {"case": row["case"], "kept as": _kept_as(case), **row}
        for row, (_, case) in zip(_memory_rows(rows), rows.iterrows(), strict=True)
    ]
    empty = "No Whisper was measured beside Voxtral: 02_whisper_beside_voxtral has no cases."
    return table(shown, empty=empty)


def _memory_rows(cases: pd.DataFrame) -> list[dict[Any, Any]]:
    """The summary of each case's memory, its status as a badge."""
    rows = tables.memory_table(cases).to_dict("records")
    return [{**row, "status": badge(text(row["status"], empty=""))} for row in rows]


def _kept_as(row: pd.Series[Any]) -> str:
    model = "llm" if is_missing(row["asr_model"]) else "asr"
    return _join(row, *(f"{model}_{name}" for name in ("backend", "dtype", "weights")))


def cases_table(run: Run) -> Table:
    """Every case, one row each, to which the claims' evidence leads."""
    later = run.trials[~is_first(run.trials)]
    later = later.assign(latency_s=numbers(later, "latency_s")).dropna(subset=["latency_s"])
    latencies = later.groupby(["notebook", "case_id"])["latency_s"].agg(["median", "size"])
    known = latencies.to_dict("index")
    watched = {id_ for name in TIMELINES for id_ in run.tables[name]["case_id"]}
    rows = []
    for name, row, (_, case) in zip(
        case_names(run.cases), _memory_rows(run.cases), run.cases.iterrows(), strict=True
    ):
        latency = known.get((case["notebook"], case["case_id"]), {})
        more = {
            "case": name,
            "notebook": number_of(case["notebook"]) or case["notebook"],
            "median latency": labels.seconds(latency.get("median")),
            "n": latency.get("size"),
            "took": labels.seconds(case["duration_s"]),
            "over time": link("trace", "#traces") if case["case_id"] in watched else EMPTY,
        }
        rows.append({k: v for k, v in (row | more).items() if k != "reason"})
    fold = f"All {counted(len(rows), 'case')}"
    return table(rows, empty="No case was started.", anchors=anchors(run.cases), fold=fold)


def lost_table(run: Run) -> Table:
    """Cases that were skipped, invalid or failed, with their reasons."""
    cases = run.cases.assign(name=case_names(run.cases), anchor=anchors(run.cases))
    return table(
        [
            {
                "Case": link(row["name"], f"#{row['anchor']}"),
                "Notebook": row["notebook"],
                "Status": badge(text(row["status"], empty="")),
                "Reason": text(row["reason"], empty="no reason recorded"),
            }
            for _, row in cases[cases["status"] != "ok"].iterrows()
        ],
        empty="Every case that was started ended well." if len(cases) else "No case was started.",
    )


def anchors(cases: pd.DataFrame) -> list[str]:
    """The id of each case's row in the page, in the order of the cases."""
    return [anchor(*key) for key in zip(cases["notebook"], cases["case_id"], strict=True)]


# ------------------------------------------------------------------------------------ strategies


def strategies_block(run: Run) -> Block:
    """The arms, and those that were asked over HTTP once more under them."""
    served = containers_table(run)
    heading = Markup("<h3>Over HTTP: one server, and two behind a gateway</h3>")
    return [strategies_table(run), *([heading, served] if served.rows else [])]


def strategies_table(run: Run) -> Table:
    """Each arm of the races: latency, throughput, peak, texts; those without a trial at the end."""
    race, timed = cases_of(run.cases, RACE), arms_of(run.trials)
    race = race.assign(arm=[labels.arm_of(row) for _, row in race.iterrows()])
    summary = tables.latency_table(run.trials, run.cases)
    known = {_arm(row): row for row in summary.to_dict("records")}
    medians = {arm: estimate.value for arm, estimate in arm_intervals(timed).items()}
    against = {
        arm.arm: f"× {labels.bracketed(arm.relative, '{:.2f}'.format)}"
        for arm in race_standings(run.cases, run.trials)
    }
    rows: list[dict[str, Any]] = []
    arms = dict.fromkeys([*known, *race["arm"]])
    for arm in sorted(arms, key=lambda arm: medians.get(arm, math.inf)):
        own = race[race["arm"] == arm]
        served = run.trials[run.trials["case_id"].isin(own["case_id"])]
        row: dict[Any, Any] = {"strategy": arm, **known.get(arm, {})}
        row |= {
            f"against {CONTROL}": against.get(arm, EMPTY),
            "same texts as alone": _parity_badge(served),
            "status": _status_badge(own["status"]),
        }
        rows.append({k: v for k, v in row.items() if k not in UNSHOWN})
    return table(rows, empty="No strategies were compared: 04 to 06 have no requests.")


#: Of the summary: what stands here in another way, or not at all.
UNSHOWN = ("p99 s", "answers right", "texts as alone")


def _arm(row: Mapping[Any, Any]) -> str:
    return str(row["strategy"]).removesuffix(" (stepped down)")


def _parity_badge(trials: pd.DataFrame) -> Any:
    matches = present(trials, "output_matches_reference").astype(bool)
    if matches.empty:
        return badge("not compared", "plain")
    if not matches.all():
        return badge(f"{int((~matches).sum())} of {len(matches)} differ", "bad")
    every = int((~is_first(trials)).sum())
    if len(matches) < every:
        return badge(f"{len(matches)} of {every} compared, equal", "plain")
    return badge("equal")


def _status_badge(statuses: pd.Series[Any]) -> Any:
    bad = [text(status, empty="unknown") for status in statuses if status != "ok"]
    if not bad:
        return badge("ok") if len(statuses) else EMPTY
    return badge(f"{len(bad)} of {len(statuses)} {bad[0]}", TONES.get(bad[0], "plain"))


def containers_table(run: Run) -> Table:
    """What HTTP, a second server and a gateway add to the arms that were asked over HTTP."""
    return table(tables.containers_table(run.trials, run.cases).to_dict("records"))
