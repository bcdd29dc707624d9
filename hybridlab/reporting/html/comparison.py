"""One page that compares runs: what differs between them, and what changed beyond noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from hybridlab.analysis.standings import LEAST_TRIALS
from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.errors import ParameterError
from hybridlab.reporting.figures import wording
from hybridlab.reporting.html import sections
from hybridlab.reporting.html.changes import (
    BYTES_NOISE,
    LEAST_CASES,
    LEAST_NOISE,
    RULE,
    UNKNOWN_NOISE,
    Change,
    bytes_refused,
    change,
    device_kind,
    noise_of,
    own_noise,
    refusals,
    times_refused,
)
from hybridlab.reporting.html.contestants import MOMENTS, Way, sizes, ways
from hybridlab.reporting.html.differences import differences_table, runs_table
from hybridlab.reporting.html.model import (
    EMPTY,
    Cell,
    Run,
    Table,
    as_bytes,
    as_seconds,
    badge,
    per_minute,
    table,
    words,
)
from hybridlab.reporting.html.page import write_page

MOST_RUNS = len(ascii_uppercase)


def build_comparison(run_dirs: Sequence[Path], output: Path) -> Path:
    """Write a page that compares runs with the first of them, which is A.

    `RunFolderError` where a folder holds no run, `ParameterError` for fewer than two runs.
    """
    folders = [Path(folder).absolute() for folder in run_dirs]
    if not 2 <= len(set(folders)) == len(folders) <= MOST_RUNS:
        raise ParameterError(f"name from 2 to {MOST_RUNS} different run folders to compare")
    runs = dict(zip(ascii_uppercase, (Run(folder) for folder in folders), strict=False))
    raced = _Ways(runs)
    latency, throughput, peaks = (raced.table(kind) for kind in ("latency", "rate", "peak"))
    memory, claims = memory_table(runs, raced.noise("peak")), claims_table(runs)
    content = {
        "runs": runs_table(runs),
        "differences": differences_table(runs),
        "answer": _answer(
            {"latency": latency, "throughput": throughput, "peak": peaks, "memory": memory}, claims
        ),
        "rule": RULE,
        "refusals": refusals(runs),
        "latency": latency,
        "throughput": throughput,
        "peaks": peaks,
        "memory": memory,
        "claims": claims,
        "lacks": {f"{letter}: {run.name}": sections.missing(run) for letter, run in runs.items()},
    }
    return write_page(output.absolute(), "comparison.html.j2", content)


class _Ways:
    """The ways of sharing of all runs, side by side."""

    def __init__(self, runs: dict[str, Run]) -> None:
        self.runs = runs
        self.found = {letter: ways(run) for letter, run in runs.items()}
        self.names = list(dict.fromkeys(name for known in self.found.values() for name in known))

    def table(self, kind: str) -> Table:
        """Values, ratios and marks of 'latency', 'rate' or 'peak'."""
        rows = [[name, *self._cells(kind, name)] for name in self.names]
        empty = "No way of sharing was raced in any of these runs."
        return _side_by_side("Strategy", self.runs, rows, empty=empty)

    def _cells(self, kind: str, name: str) -> list[Cell | str]:
        own = [known.get(name) for known in self.found.values()]
        first, *others = self.runs.values()
        refused = bytes_refused if kind == "peak" else times_refused
        changes = [
            change(
                _values(kind, own[0]),
                _values(kind, way),
                noise=self.noise(kind, name),
                least_n=LEAST_TRIALS if kind == "latency" else LEAST_CASES,
                refused=refused(first, run),
            )
            for run, way in zip(others, own[1:], strict=True)
        ]
        return [*(_shown(kind, way) for way in own), *_told(changes)]

    def noise(self, kind: str, name: str = "") -> float:
        """The noise of a way's figures as a share, 0.02 for 2 %; of all ways without a name."""
        groups = {other: self._groups(kind, other) for other in self.names}
        elsewhere = [own_noise(values) for other, values in groups.items() if other != name]
        here = device_kind(next(iter(self.runs.values())))
        held = BYTES_NOISE.get(here, LEAST_NOISE)
        limits = (held, held) if kind == "peak" else (LEAST_NOISE, UNKNOWN_NOISE)
        return noise_of(groups.get(name, []), elsewhere, least=limits[0], unknown=limits[1])

    def _groups(self, kind: str, name: str) -> list[Sequence[float]]:
        """One value a case of a way, run by run."""
        known = [ways_[name] for ways_ in self.found.values() if name in ways_]
        return [way.peaks_bytes if kind == "peak" else way.case_medians_s for way in known]


def _values(kind: str, way: Way | None) -> Sequence[float]:
    if way is None:
        return []
    return {"latency": way.latencies_s, "rate": way.rates_rps, "peak": way.peaks_bytes}[kind]


def _shown(kind: str, way: Way | None) -> str:
    """A way's figure in one run, with its interval or its count."""
    values = _values(kind, way)
    if not values:
        return EMPTY
    middle = bootstrap_interval(values)
    if kind == "latency":
        low, high = as_seconds(middle.low), as_seconds(middle.high)
        return f"{as_seconds(middle.value)} ({low} to {high}), n = {middle.n}"
    if kind == "rate":
        return f"{per_minute(middle.value)}, {wording.counted(middle.n, 'case')}"
    return f"{as_bytes(max(values))}, {wording.counted(middle.n, 'case')}"


def _told(changes: Sequence[Change]) -> list[Cell | str]:
    """Ratio and mark of each run beyond the first."""
    cells: list[Cell | str] = []
    for found in changes:
        ratio = found.ratio
        text = EMPTY if ratio.n == 0 else f"× {ratio.value:.2f}"
        if ratio.low == ratio.low:  # not-a-number without an interval
            text += f" ({ratio.low:.2f} to {ratio.high:.2f})"
        cells += [text, _mark(found)]
    return cells


def _mark(found: Change) -> Cell | str:
    """The word as a badge; a refusal's reason stands above the tables, once."""
    if found.why and found.word != "not compared":
        return f"{found.word}: {found.why}"
    return badge(found.word)


def _side_by_side(
    first: str, runs: dict[str, Run], rows: Sequence[Sequence[Cell | str]], *, empty: str
) -> Table:
    letters = list(runs)
    marks = [
        text for letter in letters[1:] for text in (f"{letter} over A", f"{letter}: beyond noise?")
    ]
    return table((first, *letters, *marks), rows, empty=empty)


def memory_table(runs: dict[str, Run], noise: float) -> Table:
    """Bytes of each size at each moment in every run; `noise` is a share."""
    found = {letter: sizes(run) for letter, run in runs.items()}
    first, *others = runs.values()
    rows: list[list[Cell | str]] = []
    for name in dict.fromkeys(name for known in found.values() for name in known):
        for column, moment in MOMENTS.items():
            values = [known.get(name, {}).get(column, []) for known in found.values()]
            changes = [
                change(values[0], own, noise=noise, least_n=1, refused=bytes_refused(first, run))
                for run, own in zip(others, values[1:], strict=True)
            ]
            shown = [as_bytes(max(own)) if own else EMPTY for own in values]
            rows.append([f"{name}: {moment}", *shown, *_told(changes)])
    return _side_by_side("Resident", runs, rows, empty="No size was measured beside Voxtral.")


def claims_table(runs: dict[str, Run]) -> Table:
    """Claims whose verdict is not the same in every run that judged them."""
    verdicts: dict[str, dict[str, str]] = {}
    for letter, run in runs.items():
        for _, row in run.tables["claims"].iterrows():
            sentence = words(row.get("sentence"), empty=words(row["claim"]))
            verdicts.setdefault(sentence, {})[letter] = words(row["verdict"])
    return table(
        ("Claim", *runs),
        [
            (sentence, *(badge(told[letter]) if letter in told else EMPTY for letter in runs))
            for sentence, told in verdicts.items()
            if len(set(told.values())) > 1
        ],
        empty="Every claim that more than one run judged has the same verdict."
        if verdicts
        else "No claim was judged in any of these runs.",
    )


def _answer(tables: dict[str, Table], claims: Table) -> str:
    """The comparison in a sentence."""
    told = []
    for what, found in tables.items():
        names = [row[0].text for row in found.rows if any(c.text == "changed" for c in row)]
        if names:
            told.append(f"{what} of {', '.join(names)}")
    rows = [row for found in tables.values() for row in found.rows]
    if not any(cell.text in ("changed", "no change") for row in rows for cell in row):
        changed = "Nothing in these runs can be compared"
    else:
        changed = (
            f"Beyond noise changed: {'; '.join(told)}" if told else "Nothing changed beyond noise"
        )
    counted = wording.counted(len(claims.rows), "claim") if claims.rows else "no claim"
    return f"{changed}; {counted} with another verdict."
