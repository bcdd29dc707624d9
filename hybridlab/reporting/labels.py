"""Every name and number as a reader sees it: arms, cases, moments, owners, bytes, seconds, and what
stands where a value is missing. Imports neither pandas nor matplotlib, so that commands may use it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hybridlab.catalog import FAMILIES
from hybridlab.results.schema import was_stopped
from hybridlab.units import GIB, format_bytes, format_number, format_percent, format_seconds

if TYPE_CHECKING:
    from hybridlab.analysis.stats import Interval

#: A reading that is missing is not zero.
EMPTY = "–"
#: The three moments of a pair's memory.
MOMENTS = {"load_peak": "load peak", "idle": "idle", "request_peak": "request peak"}
#: When one of them is.
WHILE = {
    "load_peak": "while loading",
    "idle": "between requests",
    "request_peak": "during a request",
}
#: The family of models that has each role here.
ROLES = {role: family.capitalize() for role, family in FAMILIES.items()}
#: What memory is attributed to, from the bottom to the top of a stack.
OWNERS = {
    "base": "process / context",
    "llm": "Voxtral weights",
    "asr": "Whisper weights",
    "server": "server",
    "gateway": "gateway",
    "unattributed": "other",
    "load": "loading",
    "request": "request",
}
#: The planner's owners by the owner that they are shown as.
PLANNER_OWNERS = {
    "context": "base",
    "workspaces": "base",
    "llm weights": "llm",
    "asr weights": "asr",
    "second copy": "load",
    "allocator cache": "unattributed",
    "request": "request",
    "llm request": "request",
    "asr request": "request",
}
FIT_SIGNS = {"fits": "✓", "does not fit": "✗", "depends": "?"}
#: What a search for a limit varies.
LIMITS = {"audio_s": "longest audio", "batch": "largest batch", "beams": "most beams"}
STATUSES = {"oom": "out of memory", "": "no status"}


def role_name(words: str) -> str:
    """'llm decode' as 'Voxtral decode'; what begins with no role stays as it is."""
    role, space, rest = words.partition(" ")
    return f"{ROLES.get(role, role)}{space}{rest}"


# ------------------------------------------------------------------------------- missing values


def is_missing(value: Any) -> bool:
    """None, not-a-number, infinity, pandas' own empty values or nothing but blanks."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return not math.isfinite(value)
    return value is None or str(value) in ("<NA>", "NaT")


def number_of(row: Mapping[str, Any] | Any, column: str) -> float:
    """A cell as a float; NaN where it is missing."""
    value = row.get(column)
    return math.nan if value is None or is_missing(value) else float(value)


def text_of(row: Mapping[str, Any] | Any, column: str) -> str:
    """A cell as text; '' where it is missing."""
    value = row.get(column)
    return "" if is_missing(value) else str(value)


# --------------------------------------------------------------------------------------- numbers


def text(value: Any, *, empty: str = EMPTY) -> str:
    """Any value as one line."""
    if is_missing(value):
        return empty
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value) or empty
    return " ".join(str(value).split())


def n_bytes(value: Any) -> str:
    """'8.71 GiB'."""
    return EMPTY if is_missing(value) else format_bytes(float(value))


def gib(value: Any) -> str:
    """'8.71', or below one '0.0087', for a column in GiB."""
    if is_missing(value):
        return EMPTY
    size = float(value) / GIB
    return f"{size:.2f}" if abs(size) >= 1 else f"{size:.3g}"


def seconds(value: Any) -> str:
    """'85 ms', '2.4 s'."""
    return EMPTY if is_missing(value) else format_seconds(float(value))


def number(value: Any) -> str:
    """Three digits, or all that stand before the point."""
    return EMPTY if is_missing(value) else format_number(float(value))


def percent(share: Any, *, signed: bool = False) -> str:
    """0.034 is '3.4 %', 0.123 is '12.3 %'; with a sign where asked for."""
    if is_missing(share):
        return EMPTY
    return format_percent(float(share), 1, sign="+" if signed else "").replace("-", "−")


def interval(estimate: Interval) -> str:
    """'0.41 (0.39–0.44)'; without bounds where a single value has none."""
    if estimate.n == 0 or math.isnan(estimate.low):
        return number(estimate.value) if estimate.n else EMPTY
    return f"{number(estimate.value)} ({number(estimate.low)}–{number(estimate.high)})"


def bracketed(estimate: Interval, shown: Callable[[float], str], between: str = " ") -> str:
    """'1.23 s [1.20 s, 1.26 s]', each number as `shown`; without bounds where there are none."""
    if math.isnan(estimate.low):
        return shown(estimate.value)
    return f"{shown(estimate.value)}{between}[{shown(estimate.low)}, {shown(estimate.high)}]"


def output_matches_reference(values: Iterable[Any]) -> str:
    """'12 of 12': how many requests said what the models say alone."""
    known = [bool(value) for value in values if not is_missing(value)]
    return f"{sum(known)} of {len(known)}" if known else EMPTY


def joined(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *first, last = words or [""]
    return f"{', '.join(first)} and {last}" if first else last


def spare(margin_bytes: float) -> str:
    """'3.10 GiB to spare' or '410 MiB short'."""
    return f"{format_bytes(abs(margin_bytes))} {'to spare' if margin_bytes >= 0 else 'short'}"


def capital(sentence: str) -> str:
    """The sentence with a capital at its beginning."""
    return sentence[:1].upper() + sentence[1:]


def wrap(sentence: str, width: int, *, lines: int = 3) -> str:
    """Wrapped to `width` characters; what does not fit in `lines` is cut with an ellipsis."""
    return "\n".join(
        textwrap.wrap(" ".join(sentence.split()), width, max_lines=lines, placeholder=" …")
    )


# ---------------------------------------------------------------------------------- arms, cases


def arm_name(strategy: str, variant: str) -> str:
    """'sequential/plain'; a model alone is 'asr by itself'."""
    if strategy == "reference":
        return f"{variant} by itself"
    return f"{strategy}/{variant}" if variant else strategy


def arm_of(row: Mapping[str, Any] | Any) -> str:
    """The arm of a row of `cases` or `trials`."""
    return arm_name(text_of(row, "strategy"), text_of(row, "variant"))


def limit_name(kind: str, value: float) -> str:
    """'120 s of audio' or 'batch of 4'."""
    return f"{value:g} s of audio" if kind == "audio_s" else f"batch of {value:g}"


def case_name(row: Mapping[str, Any] | Any, *, varying: Sequence[str] = ()) -> str:
    """What tells a case apart from others of its experiment: the size, the arm, the limit or the
    remedy, and the values of the columns that vary."""
    experiment, size, arm = text_of(row, "experiment"), text_of(row, "asr_model"), arm_of(row)
    extra = [text_of(row, column) for column in varying]
    if experiment == "co_residency":
        return " ".join([size or "no Whisper", *filter(None, extra)])
    if experiment == "request_scaling" and text_of(row, "scaling_kind"):
        return limit_name(text_of(row, "scaling_kind"), number_of(row, "scaling_value"))
    if experiment == "soak" and text_of(row, "mitigation"):
        return f"{text_of(row, 'strategy')}, remedy {text_of(row, 'mitigation')}"
    ask = text_of(row, "limit_kind")
    known = {
        "baseline": "Voxtral alone",
        "reference": "each by itself",
        "loading": f"{size} {text_of(row, 'load_order')} {text_of(row, 'load_path')}",
        "quality": f"{size or text_of(row, 'llm_model')} by itself",
        "memory_limits": f"{LIMITS.get(ask, ask)}, {arm}",
        "attention": f"{text_of(row, 'attention')} attention, {number(row.get('audio_s'))} s",
        "concurrent": f"{arm}, peak by owner",
        "load_sweep": f"{arm}, arrivals at load {number(row.get('load'))}",
        "service_times": f"{arm}, each length",
        "interference": f"{arm}, both at once",
    }
    return known.get(experiment, " ".join([arm, *filter(None, extra)]))


def status(row: Mapping[str, Any] | Any) -> str:
    """A case's status: 'out of memory' for oom, 'stopped' for what the reader did not let run."""
    name = text_of(row, "status")
    if name == "skipped" and was_stopped(row):
        return "stopped"
    return STATUSES.get(name, name)


def failure(row: Mapping[str, Any] | Any) -> str:
    """'skipped: needs 7.2 GiB …'; '' for a case that is ok."""
    if text_of(row, "status") == "ok":
        return ""
    return f"{status(row)}: {text_of(row, 'reason') or 'no reason recorded'}"
