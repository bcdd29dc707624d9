"""The page's tables of results, computed from a run's rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hybridlab.analysis.stats import Interval, bootstrap_interval, is_stable
from hybridlab.reporting import tables
from hybridlab.reporting.figures import speed, wording
from hybridlab.reporting.html.model import (
    EMPTY,
    Cell,
    Run,
    Table,
    as_bytes,
    as_seconds,
    badge,
    is_missing,
    per_minute,
    table,
    words,
)
from hybridlab.units import format_bytes, format_seconds

CONTROL = "sequential plain"  # the arm that runs in every race


def options_table(run: Run, *, every: bool = False) -> Table:
    """Options A, B, C: what the original plan said, what is predicted for its card, and what was
    measured on this device. Combinations that are neither a backend's default nor measured stand
    only in the table of `every` one."""
    given = run.verdict.get("options")
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    plans = _original_plans(run)
    return table(
        (
            "Option",
            "Whisper",
            "Original plan",
            "Kept as",
            "Planned on",
            "Predicted",
            "Margin",
            "Verdict",
            "Measured",
        ),
        [
            (
                words(item.get("option")),
                words(item.get("whisper")),
                plans.get(words(item.get("option")), EMPTY),
                _join(item, "backend", "dtype") + (" (default)" if item.get("is_default") else ""),
                words(item.get("card")),
                _planned(item),
                as_bytes(item.get("margin_bytes")),
                _fit_cell(item),
                _measured(item),
            )
            for item in items
            if every or _is_main(item)
        ],
        numeric=(5, 6),
        empty="Options A, B and C were not judged: 07_verdict did not finish.",
    )


def _original_plans(run: Run) -> dict[str, str]:
    """'fits at 11.6 of 15 GB' by option, from the claims option-a-fits and so on."""
    claims = run.tables["claims"]
    told = zip(claims["claim"].map(words), claims["expected"].map(words), strict=True)
    return {
        name[7].upper(): text
        for name, text in told
        if name.startswith("option-") and name.endswith("-fits")
    }


def _is_main(item: dict[str, Any]) -> bool:
    return item.get("is_default") is not False or not is_missing(item.get("measured"))


def _planned(item: dict[str, Any]) -> str:
    if not is_missing(item.get("planned_gb")):
        return f"{words(item['planned_gb'])} GB"
    return as_bytes(item.get("total_bytes"))


def _fit_cell(item: dict[str, Any]) -> Cell | str:
    if isinstance(item.get("fits"), bool):
        return badge("fits" if item["fits"] else "does not fit")
    return words(item.get("verdict"))


def _measured(item: dict[str, Any]) -> str:
    """'12.90 GiB on cuda:0 beside mini-3b float16, random weights', as far as it is known."""
    value: Any = item.get("measured_peak_bytes", item.get("measured"))
    if is_missing(value) or isinstance(value, (str, list, dict)):
        return words(value)
    parts = {"measured_on": " on {}", "measured_voxtral": " beside {}"}
    parts["measured_weights"] = ", {} weights"
    told = [form.format(item[key]) for key, form in parts.items() if not is_missing(item.get(key))]
    return format_bytes(float(value)) + "".join(told)


def _join(item: Any, *names: str) -> str:
    """The values that are there, one after the other."""
    parts = [words(item.get(name), empty="") for name in names]
    return " ".join(part for part in parts if part) or EMPTY


def memory_table(run: Run) -> Table:
    """The three numbers and the margin of each Whisper size beside Voxtral."""
    rows = cases_of(run.cases, "beside", "baseline")
    if len(rows):
        rows = wording.worst_per_label(rows)
    return table(
        (
            "Whisper",
            "Kept as",
            "Load peak",
            "At rest",
            "Request peak",
            "Margin",
            "Status",
            "Reason",
        ),
        [
            (
                words(row.get("whisper_size"), empty="none (Voxtral alone)"),
                _kept_as(row),
                as_bytes(row.get("load_peak_bytes")),
                as_bytes(row.get("steady_bytes")),
                as_bytes(row.get("request_peak_bytes")),
                as_bytes(row.get("margin_bytes")),
                badge(words(row["status"], empty="")),
                words(row["reason"]),
            )
            for _, row in rows.iterrows()
        ],
        numeric=(2, 3, 4, 5),
        empty="No Whisper was measured beside Voxtral: 02_whisper_beside_voxtral has no cases.",
    )


def _kept_as(row: pd.Series[Any]) -> str:
    tenant = "whisper" if not is_missing(row.get("whisper_size")) else "voxtral"
    return _join(row, *(f"{tenant}_{name}" for name in ("backend", "dtype", "weights")))


def strategies_table(run: Run) -> Table:
    """Each arm of the races: latency, throughput, peak, parity."""
    trials, race = race_trials(run), cases_of(run.cases, "race")
    labels = [wording.arm_label(row) for _, row in race.iterrows()]
    plain = pd.Series(labels, index=race.index, dtype=str)
    intervals = speed.arm_intervals(trials)
    arms = sorted(intervals, key=lambda arm: intervals[arm].value)
    arms += [arm for arm in dict.fromkeys(plain) if arm not in intervals]
    return table(
        (
            "Strategy",
            "Median latency",
            "95 % interval",
            "p95",
            "n",
            "First request",
            f"Against {CONTROL}",
            "Throughput",
            "Peak",
            "Texts",
            "Status",
        ),
        [
            _strategy_row(arm, trials[trials["arm"] == arm], race[plain == arm], run, trials)
            for arm in arms
        ],
        numeric=(1, 2, 3, 4, 5, 6, 7, 8),
        empty="No strategies were compared: 04 to 06 have no requests.",
    )


def containers_table(run: Run) -> Table:
    """What HTTP, a second server and a gateway add to the arms that were asked over HTTP."""
    found = tables.containers_table(run.tables["trials"], run.cases)
    return table(
        tuple(_heading(str(column)) for column in found.columns),
        [[str(value) for value in row] for row in found.itertuples(index=False)],
        numeric=range(1, len(found.columns)),
        empty="No arm was asked over HTTP.",
    )


def _heading(column: str) -> str:
    """'gateway ms' as the page writes it: 'Gateway (ms)'."""
    words_, _, unit = column.rpartition(" ")
    text = f"{words_} ({unit})" if unit in ("s", "ms", "MiB") else column
    return text if text == "n" else text[:1].upper() + text[1:]


def _strategy_row(
    arm: str, trials: pd.DataFrame, cases: pd.DataFrame, run: Run, everything: pd.DataFrame
) -> list[Cell | str]:
    served = run.tables["trials"]  # those without a latency, too
    served = served[served["case_id"].isin(cases["case_id"])]
    first = speed.is_first(trials)
    later = trials.loc[~first, "latency_s"]
    interval = bootstrap_interval(later)
    unstable = "" if is_stable(later) or interval.n == 0 else " (unstable)"
    rate = wording.numbers(cases, "throughput_rps").median()
    return [
        arm,
        as_seconds(interval.value) + unstable,
        interval_words(interval),
        as_seconds(float(later.quantile(0.95)) if len(later) else None),
        str(interval.n or EMPTY),
        as_seconds(trials.loc[first, "latency_s"].median()),
        _against_control(trials, everything),
        per_minute(rate),
        as_bytes(wording.highest_peak(cases).max()),
        _parity_cell(served),
        _status_cell(cases),
    ]


def _against_control(trials: pd.DataFrame, everything: pd.DataFrame) -> str:
    """Latency over the control's of the same notebooks, since only those were interleaved."""
    if trials.empty or "notebook" not in trials:
        return EMPTY
    control = everything[(everything["arm"] == CONTROL) & ~speed.is_first(everything)]
    control = control[control["notebook"].isin(set(trials["notebook"]))]
    own = trials.loc[~speed.is_first(trials), "latency_s"]
    if control.empty or own.empty:
        return EMPTY
    return f"× {own.median() / control['latency_s'].median():.2f}"


def _parity_cell(trials: pd.DataFrame) -> Cell:
    parity = wording.present(trials, "parity").astype(bool)
    if parity.empty:
        return Cell("not compared", "plain")
    if parity.all():
        return badge("equal")
    return Cell(f"{int((~parity).sum())} of {len(parity)} differ", "bad")


def _status_cell(cases: pd.DataFrame) -> Cell:
    statuses = [words(status, empty="unknown") for status in cases["status"]]
    bad = [status for status in statuses if status != "ok"]
    if not bad:
        return badge("ok") if statuses else Cell(EMPTY)
    return Cell(f"{len(bad)} of {len(statuses)} {bad[0]}", badge(bad[0]).tone)


def cases_of(cases: pd.DataFrame, *experiments: str) -> pd.DataFrame:
    return cases[cases["experiment"].isin(experiments)]


def race_trials(run: Run) -> pd.DataFrame:
    trials = run.tables["trials"]
    return speed.arms_of(trials[trials["experiment"] == "race"])


def interval_words(interval: Interval) -> str:
    if is_missing(interval.low):
        return EMPTY
    return f"{format_seconds(interval.low)} to {format_seconds(interval.high)}"
