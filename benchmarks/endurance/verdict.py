"""What counts as not having endured something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hybridlab.units import format_bytes

Found = Mapping[str, Any]
#: Of p95 over a soak: a queue that fills up at a rate that is not held shows far more.
MOST_SLOWDOWN = 3.0


def failures(found: Found) -> list[str]:
    """A line for everything that a server must not do, empty where it has endured all."""
    lines = []
    for name, part in found.items():
        judge = JUDGES.get(name.split()[0])
        if judge is not None:
            lines += [f"{name}: {line}" for line in (*_answers(part), *judge(part))]
    held = {name: rest["descriptors"] for name, rest in found["at_rest"].items()}
    if max(held.values()) > held["knee"]:
        lines.append(f"descriptors at rest grow: {held}")
    return lines


def _answers(part: Found) -> Iterator[str]:
    for fate in ("lost", "wrong"):
        if part[fate]:
            yield f"{part[fate]} {fate}: {part['seen']}"


def _soak(part: Found) -> Iterator[str]:
    for name, held in part["held"].items():
        if held["trend"] == "grows":
            low, high = map(format_bytes, held["gain_interval_bytes"])
            yield f"the memory of {name} grows by {low} to {high}"
    first_s, last_s = part["first_fifth"]["p95_s"], part["last_fifth"]["p95_s"]
    if last_s > MOST_SLOWDOWN * first_s:
        yield f"p95 rose from {first_s:.2f} s in the first fifth to {last_s:.2f} s in the last"


def _burst(part: Found) -> Iterator[str]:
    if not part["refused"]:
        yield "nothing was refused, so it was no burst"
    if not part["back_to_normal"]:
        yield "latency did not come back to what it was"


def _strangers(part: Found) -> Iterator[str]:
    if part["left_behind"]:
        yield f"{part['left_behind']:g} requests never ended"
    if not part["unhurt"]:
        yield f"p95 of the others is {part['p95_ratio']:.1f} times what it is without"
    if not part.get("all_refused", True):
        yield f"not all were refused: {part['by_kind']}"


def _kill(part: Found) -> Iterator[str]:
    if not part["replaced"] or part["answers_again_s"] is None:
        yield "it did not come back"
    if not part["others_untouched"]:
        yield "another process ended with it"


def _sigterm(part: Found) -> Iterator[str]:
    if part["exit_code"] or part["tracebacks"]:
        yield f"exit code {part['exit_code']}, {part['tracebacks']} tracebacks"


JUDGES = {
    "knee": lambda part: (),
    "soak": _soak,
    "burst": _burst,
    "slow": _strangers,
    "vanishing": _strangers,
    "hostile": _strangers,
    "kill": _kill,
    "sigterm": _sigterm,
}
