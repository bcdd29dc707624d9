"""What the page's brushable traces show: memory over time, phases, and who held the bytes.

The page stays small, so a long curve is thinned: the time is cut into equal buckets, and of each
bucket the lowest and the highest reading stay. No peak is lost. Phases of one kind that lie close
together are joined.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.html.page import render
from hybridlab.reporting.html.view_model import Run
from hybridlab.reporting.palette import COLORBLIND, OWNER_COLOURS, PHASE_LOOK
from hybridlab.reporting.rows import RACE, case_labels, merged_bands
from hybridlab.units import MIB

Values = npt.NDArray[np.float64]

#: Whose colour the lane of each role has.
_ROLE_OWNERS = {"llm": "llm", "asr": "asr", "copy": "base"}

#: Buckets of a curve: two readings stay of each, so that a curve has at most twice as many.
BUCKETS = 250
#: Phases of one kind are joined where they lie closer than this share of the case's time.
JOIN_SHARE = 0.0005
#: Characters of all traces before they are packed; about a sixth of that goes into the page.
BUDGET_CHARACTERS = 3_000_000


def traces_block(run: Run) -> Markup:
    """The traces and the library that draws them, packed, in the panel that shows them."""
    found = traces(run)
    left_out = found["left_out"]
    note = f"{left_out} more cases are in the tables of the run only: the page stays small."
    return render(
        "traces.html.j2",
        traces=packed(json.dumps(found, separators=(",", ":"))) if found["cases"] else "",
        library=packed(vega_script()) if found["cases"] else "",
        note=note if left_out else "",
    )


@functools.cache
def vega_script() -> str:
    """The one library that the page carries: vega-embed with Vega and Vega-Lite inside, which it
    leaves on `window`. Bundled from PyPI's vl-convert-python, so that the same versions give the
    same bytes: 0.9 MB, 0.4 MB as it is embedded."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


@functools.lru_cache(maxsize=2)
def packed(text: str) -> Markup:
    """gzip and base64: what the page unpacks with DecompressionStream."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode())


def traces(run: Run) -> dict[str, Any]:
    """The traces for the page's script: `cases`, the looks, and how many cases are `left_out`.

    Cases come in the order in which they ran; where they are too many for the page, later rounds
    of the same arm go first.
    """
    samples, spans, ledgers = (
        _by_case(run.tables[name]) for name in ("samples", "spans", "ledgers")
    )
    cases = run.cases
    keys = list(zip(cases["notebook"], cases["case_id"], strict=True))
    labels = case_names(cases)
    rounds = numbers(cases, "round").fillna(0).to_list()
    found: dict[int, dict[str, Any]] = {}
    spent = 0
    watched = [i for i, key in enumerate(keys) if key in samples or key in spans]
    for index in sorted(watched, key=lambda i: rounds[i]):
        key = keys[index]
        trace = _trace(labels[index], cases.iloc[index], samples.get(key), spans.get(key))
        trace["ledger"] = _ledger(ledgers.get(key))
        spent += len(json.dumps(trace))
        if spent > BUDGET_CHARACTERS:
            break
        found[index] = trace
    kept = sorted(found)
    races = [n for n, i in enumerate(kept) if cases.iloc[i]["experiment"] == RACE]
    return {
        "cases": [found[index] for index in kept],
        "start": next(iter(races), 0),
        "left_out": len(watched) - len(found),
        "owners": _owner_colours([row[1] for trace in found.values() for row in trace["ledger"]]),
        "roles": {role: OWNER_COLOURS[owner] for role, owner in _ROLE_OWNERS.items()},
        "colours": list(COLORBLIND[:5]),
        "strengths": {phase: strength for phase, (strength, _) in PHASE_LOOK.items()},
    }


def case_names(cases: pd.DataFrame) -> list[str]:
    """A name for each case that tells it from the others of its notebook: the experiment, what
    sets the case apart, and where that is not enough its round and its place among equals."""
    experiments = cases["experiment"].fillna("").str.replace("_", " ")
    own = [
        label if label.startswith(experiment) else f"{experiment}: {label}"
        for experiment, label in zip(experiments, case_labels(cases), strict=True)
    ]
    named = cases[["notebook"]].assign(name=pd.Series(own, index=cases.index, dtype=str))
    rounds = ["" if np.isnan(r) else f", round {r + 1:g}" for r in numbers(cases, "round")]
    repeated = named.duplicated(keep=False)
    named["name"] += pd.Series(rounds, index=cases.index, dtype=str).where(repeated, "")
    places = named.groupby(["notebook", "name"]).cumcount() + 1
    return [
        name if place == 1 else f"{name} ({place})"
        for name, place in zip(named["name"], places, strict=True)
    ]


def anchor(notebook: str, case_id: str) -> str:
    """The id of a case's row in the page."""
    return f"case-{notebook[:2]}-{case_id}".replace(" ", "-")


def _by_case(table: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    return dict(list(table.groupby(["notebook", "case_id"], sort=False)))


def _trace(
    label: str, case: pd.Series[Any], samples: pd.DataFrame | None, spans: pd.DataFrame | None
) -> dict[str, Any]:
    capacity = labels.number_of(case, "capacity_bytes")
    curves = _curves(samples)
    return {
        "id": anchor(case["notebook"], case["case_id"]),
        "label": label,
        "notebook": case["notebook"],
        "status": labels.text_of(case, "status"),
        "capacity": None if np.isnan(capacity) else round(capacity / MIB, 1),
        "readings": 0 if samples is None else len(samples),
        "shown": sum(len(times) for times, _ in curves.values()),
        "curves": curves,
        "spans": bands(spans) if spans is not None else [],
    }


def _curves(samples: pd.DataFrame | None) -> dict[str, tuple[list[float], list[float]]]:
    """(seconds, MiB) of each source, thinned."""
    if samples is None:
        return {}
    found = {}
    for source, rows in samples.groupby("source", sort=False):
        readings = pd.DataFrame({"t": numbers(rows, "t_s"), "m": numbers(rows, "bytes") / MIB})
        readings = readings.dropna().sort_values("t", kind="stable")
        times, values = readings["t"].to_numpy(), readings["m"].to_numpy()
        keep = thinned(times, values, BUCKETS)
        found[str(source)] = (
            [round(float(t), 4) for t in times[keep]],
            [round(float(v), 2) for v in values[keep]],
        )
    return found


def thinned(times: Values, values: Values, buckets: int) -> npt.NDArray[np.int64]:
    """Indices of the lowest and highest reading in each of `buckets` equal stretches of the sorted
    times, of the first and of the last; all of them where they are few."""
    if len(times) <= 2 * buckets:
        return np.arange(len(times))
    stretch = max(float(times[-1] - times[0]), 1e-9) / buckets
    bucket = np.minimum(((times - times[0]) / stretch).astype(int), buckets - 1)
    groups = pd.Series(values).groupby(bucket)
    kept = np.concatenate([groups.idxmin(), groups.idxmax(), [0, len(times) - 1]])
    return np.unique(kept.astype(np.int64))


def bands(spans: pd.DataFrame) -> list[list[Any]]:
    """[role, phase, start, end] in seconds of each span, close neighbours as one."""
    rows = spans.assign(start_s=numbers(spans, "start_s"), end_s=numbers(spans, "end_s"))
    rows = rows.dropna(subset=["start_s", "end_s"]).sort_values("start_s", kind="stable")
    reach = float(rows["end_s"].max() - rows["start_s"].min()) if len(rows) else 0.0
    return [
        [str(role), phase, round(start, 5), round(start + width, 5)]
        for role, own in rows.groupby("role", sort=True)
        for phase, known in merged_bands(own, gap_s=reach * JOIN_SHARE).items()
        for start, width in known
    ]


def _owner_colours(owners: list[str]) -> dict[str, str]:
    """Each owner's colour: the figures' own where its name begins with one of theirs."""
    found: dict[str, str] = {}
    spare = cycle(reversed(COLORBLIND))
    for owner in dict.fromkeys(owners):
        first = owner.split()[0]
        same = {"process": "base", "context": "base", "loading": "load", "free": ""}
        taken = OWNER_COLOURS.get(same.get(first, first))
        found[owner] = taken if taken and taken not in found.values() else next(spare)
    return found


def _ledger(ledger: pd.DataFrame | None) -> list[list[Any]]:
    """[moment, owner, MiB] of what the case itself held."""
    if ledger is None:
        return []
    inside = ledger["in_process"].ne(False) & ledger["owner"].ne("free")  # older runs say no more
    own = ledger[inside].assign(mib=numbers(ledger, "bytes") / MIB)
    own = own[own["mib"] > 0]
    return [
        [labels.MOMENTS.get(str(moment), str(moment)), str(owner), round(float(mib), 2)]
        for moment, owner, mib in zip(own["moment"], own["owner"], own["mib"], strict=True)
    ]
