"""What readings say, in one sentence for each step: rows in, words out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from benchmarks.gpu_check.commands import Ended, Rows
from benchmarks.gpu_check.machine import Machine
from hybridlab import catalog
from hybridlab.devices.memory_limit import LEAST_LARGER_BYTES
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GB, MIB, format_bytes, format_percent, format_seconds

TESTS = "tests.xml"
#: Of allocated bytes, which are the sizes that torch was asked for: equal to the byte.
ALLOCATED = ("load_peak_bytes", "idle_bytes", "request_peak_bytes")
#: Of reserved bytes: torch takes segments of 2 or 20 MiB, and one may come or stay away.
RESERVED = ("load_peak_reserved_bytes", "idle_reserved_bytes", "request_peak_reserved_bytes")
SEGMENT_BYTES = 20 * MIB
#: What a way of sharing must not end in; a lack of memory or of the machine is a result.
FAULTS = ("crashed", "timeout")

Status = Literal["ok", "failed", "skipped", "cut", "left out"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`rows` are what is kept of the readings; `fault` why they do not do, '' where they do."""

    sentence: str = ""
    rows: Rows = field(default_factory=list)
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a step."""

    step: str
    status: Status
    seconds: float = 0.0
    finding: str = ""
    reason: str = ""
    rows: Rows = field(default_factory=list)


def done(step: str, ended: Mapping[str, Ended], finding: Finding) -> Done:
    """The worst of its programs, or of what they found, is the step's status; one that could not
    run here is none while another did."""
    reasons = [finding.fault] if finding.fault else []
    several = len(ended) > 1
    reasons += [f"{n}: {e.reason}" if several else e.reason for n, e in ended.items() if e.reason]
    found = {one.status for one in ended.values()}
    status: Status = "skipped"
    if finding.fault or "failed" in found:
        status = "failed"
    elif "cut" in found:
        status = "cut"
    elif "ok" in found:
        status = "ok"
    return Done(
        step=step,
        status=status,
        finding=finding.sentence,
        reason="; ".join(reasons),
        rows=finding.rows,
    )


# ------------------------------------------------------------------------------------------- pairs


def of_pairs(rows: Rows) -> Finding:
    """Rows of the same pairs with `side` 'here' and 'simulated'."""
    compared = [moment for pair in _both(rows) for moment in _moments(*pair)]
    kept = [*rows, *compared]
    alone = sorted({str(row["pair"]) for row in rows} - {moment["pair"] for moment in compared})
    beside = f"; not compared: {', '.join(alone)}" if alone else ""
    if not compared:
        return Finding(sentence=f"nothing to compare{beside}" if alone else "", rows=kept)
    readings = (
        f"{len(compared)} readings of {', '.join(dict.fromkeys(m['pair'] for m in compared))}"
    )
    other = [moment for moment in compared if not moment["equal"]]
    if not other:
        sentence = (
            f"{readings}: allocated bytes equal, reserved ones within a segment "
            f"({format_bytes(SEGMENT_BYTES)}; most {_most(compared)}){beside}"
        )
        return Finding(sentence=sentence, rows=kept)
    worst = max(other, key=lambda moment: abs(moment["difference_bytes"]))
    sentence = (
        f"{len(other)} of {readings} differ, most {worst['reading']} of {worst['pair']}: "
        f"{format_bytes(worst['here'])} here, {format_bytes(worst['simulated'])} simulated{beside}"
    )
    return Finding(sentence=sentence, rows=kept, fault="the simulated card allocates otherwise")


def _both(rows: Rows) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The pairs that were served on both sides."""
    for row in rows:
        for twin in rows:
            sides = (row["side"], twin["side"]) == ("here", "simulated")
            if sides and row["pair"] == twin["pair"] and row["status"] == twin["status"] == "ok":
                yield row, twin


def _moments(here: Mapping[str, Any], simulated: Mapping[str, Any]) -> Rows:
    found = []
    for reading in (*ALLOCATED, *RESERVED):
        difference = here[reading] - simulated[reading]
        allowed = SEGMENT_BYTES if reading in RESERVED else 0
        found.append(
            {
                "pair": here["pair"],
                "reading": reading,
                "here": here[reading],
                "simulated": simulated[reading],
                "difference_bytes": difference,
                "equal": abs(difference) <= allowed,
            }
        )
    return found


def _most(compared: Rows) -> str:
    own = [abs(moment["difference_bytes"]) for moment in compared]
    return format_bytes(max(own)) if any(own) else "0"


# ------------------------------------------------------------------------------- swaps and decoding


def of_swaps(ended: Mapping[str, Ended], machine: Machine) -> Finding:
    rows, said = [], []
    for variant, result in _results(ended):
        row = {
            "variant": variant,
            "asr_model": result["asr_model"],
            "swaps": result["swaps_of_each"],
            "hashes_equal": result["hashes_equal"],
            "same_tokens": result["same_tokens"],
        }
        if not machine.simulated:
            speed, link = (
                result["median_copy_in_bytes_per_s"]["asr"],
                result["link_bytes_per_s"],
            )
            row |= {"copy_in_bytes_per_s": speed, "link_bytes_per_s": link}
            said.append(
                f"{variant} {speed / GB:.1f} GB/s, {format_percent(speed / link)} of the link's "
                f"{link / GB:.1f}"
            )
        rows.append(row)
    if machine.simulated and rows:
        said = [f"{', '.join(row['variant'] for row in rows)} swapped; {NO_TIMES}"]
    if rows and all(row["hashes_equal"] for row in rows):
        said.append("every weight as it was loaded")
    return Finding(sentence="; ".join(said), rows=rows)


def of_decoding(ended: Mapping[str, Ended], machine: Machine) -> Finding:
    rows, said = [], []
    floor = ""
    for kind, result in _results(ended):
        row = {"kind": kind, "dtype": result["dtype"], "bytes_per_token": result["bytes_per_token"]}
        if not machine.simulated:
            own, traffic = result["kinds"][kind], result["copy_traffic_bytes_per_s"]
            row |= {
                "tokens_per_s": own["tokens_per_s"],
                "floor_tokens_per_s": result["floor_tokens_per_s"],
                "copy_traffic_bytes_per_s": traffic,
            }
            said.append(f"{kind} {own['tokens_per_s']:.1f} tokens/s")
            said[-1] += f", {format_percent(own['share_of_floor'])} of the floor"
            floor = (
                f"the floor is {result['floor_tokens_per_s']:.0f}: "
                f"{result['bytes_per_token'] / GB:.2f} GB a token at {traffic / GB:.0f} GB/s"
            )
        rows.append(row)
    if machine.simulated and rows:
        read = rows[0]["bytes_per_token"] / GB
        return Finding(sentence=f"{read:.2f} GB are read for a token; {NO_TIMES}", rows=rows)
    return Finding(sentence="; ".join([*said, floor] if said else []), rows=rows)


def _results(ended: Mapping[str, Ended]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in ended.items():
        if one.status == "ok" and one.rows:
            yield name, one.rows[0]


# ------------------------------------------------------------------------------------------- tests


def of_tests(output: Path) -> Finding:
    path = output / TESTS
    if not path.is_file():
        return Finding()
    rows = [
        {
            "test": f"{case.get('classname')}::{case.get('name')}",
            "outcome": _outcome(case),
            "seconds": float(case.get("time") or 0),
        }
        for case in ElementTree.parse(path).iter("testcase")
    ]
    counts = {
        outcome: sum(row["outcome"] == outcome for row in rows)
        for outcome in ("passed", "failed", "error", "skipped")
    }
    sentence = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n)
    wrong = [row["test"] for row in rows if row["outcome"] in ("failed", "error")]
    return Finding(sentence=sentence, rows=rows, fault=", ".join(wrong))


def _outcome(case: ElementTree.Element) -> str:
    tags = {child.tag for child in case}
    for tag, outcome in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        if tag in tags:
            return outcome
    return "passed"


# ----------------------------------------------------------------------------------------- sharing


def of_sharing(rows: Rows, machine: Machine) -> Finding:
    """Rows of arms with their status, margin and, where there is a clock, latency."""
    kept = [
        {n: v for n, v in row.items() if n != "latency_s" or not machine.simulated} for row in rows
    ]
    if not rows:
        return Finding()
    served = [row for row in kept if row["status"] == "ok"]
    said = [f"{len(served)} of {len(kept)} ways served {_inside(machine)}"]
    margins = [row for row in served if row["margin_bytes"] is not None]
    if margins:
        least = min(margins, key=lambda row: row["margin_bytes"])
        said.append(f"the least margin is {format_bytes(least['margin_bytes'])} ({least['arm']})")
    timed = [row for row in served if row.get("latency_s")]
    if timed:
        fastest = min(timed, key=lambda row: row["latency_s"])
        said.append(f"fastest {fastest['arm']}, {format_seconds(fastest['latency_s'])} a request")
    elif served:
        said.append(NO_TIMES)
    other = [row["arm"] for row in served if row["output_matches_reference"] is False]
    if other:
        said.append(f"other tokens than each model alone: {', '.join(other)}")
    said += [f"{row['arm']} {row['status']}: {row['reason']}" for row in kept if row not in served]
    wrong = [row["arm"] for row in kept if row["status"] in FAULTS]
    return Finding(sentence="; ".join(said), rows=kept, fault=", ".join(wrong))


def _inside(machine: Machine) -> str:
    t4 = catalog.card("t4").usable_bytes
    if machine.capacity_bytes >= t4 + LEAST_LARGER_BYTES:
        return f"inside {format_bytes(t4)}"
    return f"in this card's {format_bytes(machine.capacity_bytes)}"


# ----------------------------------------------------------------------------------------- summary


def markdown(machine: Machine, steps: Sequence[Done]) -> str:
    """A table of what was found."""
    what = "a rehearsal on a simulated card" if machine.simulated else "measured"
    known = f"`{machine.card}` of the catalog" if machine.card else "no card of the catalog"
    lines = [
        f"# GPU check: {machine.title}",
        "",
        f"{format_bytes(machine.capacity_bytes)}, {known}; {what}.",
        "",
        "| step | status | seconds | finding | reason |",
        "|---|---|---:|---|---|",
    ]
    for one in steps:
        cells = (one.step, one.status, f"{one.seconds:.0f}", one.finding, one.reason)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
