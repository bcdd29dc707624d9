"""Seconds that each figure takes, as JSON on stdout: `python -m benchmarks.figures RUN`.

Every figure of the notebooks is drawn and laid out from the tables of a finished run, and from the
same tables with the cases repeated until there are a thousand. `first_s` is the first call in this
process, `again_s` the best of the next ones; `save_s` writes PNG and SVG.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.run import seconds
from hybridlab import catalog, planner
from hybridlab.devices.system_info import machine, versions
from hybridlab.reporting import figures
from hybridlab.results.reader import run_table
from hybridlab.results.schema import TABLES

Tables = dict[str, pd.DataFrame]
CASES = 1_000
#: The second time is the least of so many: what else the machine does only adds to it.
AGAIN = 3


def of(tables: Tables, table: str, notebook: str = "", experiment: str = "") -> pd.DataFrame:
    """The rows of a table that one notebook, or one experiment, left."""
    rows = tables[table]
    if notebook:
        rows = rows[rows["notebook"].str.startswith(notebook)]
    return rows[rows["experiment"] == experiment] if experiment else rows


def shown_case(tables: Tables, notebook: str) -> str:
    """The case that a notebook shows over time: the last of its race that was served."""
    cases = of(tables, "cases", notebook)
    race = cases[(cases["experiment"] == "strategy_comparison") & (cases["status"] == "ok")]
    return str((race if len(race) else cases)["case_id"].iloc[-1])


def notebook_figures(notebook: str) -> dict[str, Callable[[Tables], Figure]]:
    """What notebooks 04 to 06 all draw."""

    def part(tables: Tables, name: str) -> pd.DataFrame:
        return of(tables, name, notebook)

    return {
        "latency": lambda t: figures.latency(part(t, "trials"), part(t, "cases")),
        "ecdf": lambda t: figures.latency_ecdf(part(t, "trials"), part(t, "cases")),
        "lanes": lambda t: figures.request_lanes(
            part(t, "spans"), part(t, "cases"), every_variant=True
        ),
        "memory-over-time": lambda t: figures.memory_over_time(
            part(t, "samples"), part(t, "spans"), part(t, "cases"), case_id=shown_case(t, notebook)
        ),
        "memory": lambda t: figures.memory_bars(of(t, "cases", notebook, "strategy_comparison")),
    }


def pairs(tables: Tables) -> pd.DataFrame:
    cases = of(tables, "cases", "02")
    return cases[cases["experiment"] != "quality"]


#: Every figure of the notebooks by the name of its file.
FIGURES: dict[str, Callable[[Tables], Figure]] = {
    "00-plan": lambda t: figures.plan_bars(
        [p for p in planner.plan_table(catalog.card("t4")) if p.asr_dtype != "int8"]
    ),
    "01-memory": lambda t: figures.memory_bars(of(t, "cases", "01")),
    "01-memory-over-time": lambda t: figures.memory_over_time(
        of(t, "samples", "01"),
        of(t, "spans", "01"),
        of(t, "cases", "01"),
        case_id=shown_case(t, "01"),
    ),
    "02-memory": lambda t: figures.memory_bars(of(t, "cases", "02", "co_residency")),
    "02-three-numbers": lambda t: figures.three_numbers(pairs(t)),
    "02-predicted": lambda t: figures.predicted_against_measured(of(t, "ledgers", "02"), pairs(t)),
    "02-quality-memory": lambda t: figures.quality_memory(
        of(t, "trials", "02"), of(t, "cases", "02")
    ),
    "03-limits": lambda t: figures.request_scaling(of(t, "cases", "03", "request_scaling")),
    "03-squeeze": lambda t: figures.survival(of(t, "probes", "03"), of(t, "cases", "03")),
    "03-ageing": lambda t: figures.soak(of(t, "cycles", "03"), of(t, "cases", "03")),
    **{
        f"{notebook}-{name}": draw
        for notebook in ("04", "05", "06")
        for name, draw in notebook_figures(notebook).items()
    },
    "05-arrivals": lambda t: figures.load_sweep(of(t, "trials", "05"), of(t, "cases", "05")),
    "05-interference": lambda t: figures.interference(of(t, "spans", "05"), of(t, "cases", "05")),
    "06-swap-stages": lambda t: figures.swap_stages(of(t, "spans", "06"), of(t, "cases", "06")),
    "06-arrivals": lambda t: figures.load_sweep(of(t, "trials", "06"), of(t, "cases", "06")),
    "06-break-even": lambda t: figures.break_even(of(t, "trials", "06"), of(t, "cases", "06")),
    "07-latency": lambda t: figures.latency(t["trials"], t["cases"]),
    "07-throughput": lambda t: figures.throughput(t["cases"]),
    "07-memory": lambda t: figures.memory_bars(of(t, "cases", "", "co_residency")),
    "07-pareto": lambda t: figures.pareto(t["cases"], t["trials"]),
    "07-lanes": lambda t: figures.request_lanes(t["spans"], t["cases"]),
}


def repeated(tables: Tables, least_cases: int) -> Tables:
    """The tables with all cases repeated under new names until there are so many."""
    times = -(-least_cases // len(tables["cases"]))
    many: Tables = {}
    for name, rows in tables.items():
        copies = [rows.assign(case_id=rows["case_id"].astype(str) + f"-x{n}") for n in range(times)]
        many[name] = pd.concat([rows, *copies[1:]], ignore_index=True)
    return many


def times(tables: Tables) -> dict[str, dict[str, float]]:
    """First and second call of each figure, layout and rasterisation included, in seconds."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, draw in FIGURES.items():

            def work(draw: Callable[[Tables], Figure] = draw) -> None:
                draw(tables).draw_without_rendering()

            first_s = seconds(work)
            figure = draw(tables)
            found[name] = {
                "first_s": round(first_s, 3),
                "again_s": round(min(seconds(work) for _ in range(AGAIN)), 3),
                "save_s": round(
                    seconds(lambda f=figure, n=name: figures.save(f, Path(folder), n)), 3
                ),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    run = parser.parse_args().run
    tables = {name: run_table(run, name) for name in TABLES}
    many = repeated(tables, CASES)
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "cases": len(tables["cases"]),
        "figures": times(tables),
        "cases_repeated": len(many["cases"]),
        "figures_repeated": times(many),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
