"""The tables of a run: every column with its type and a sentence, from which `docs/columns.md` is
generated. The writer refuses a row with a column that is not here.

A column's unit is the end of its name: `_s` seconds, `_bytes` bytes, `_share` of one, `_rps`
requests per second, `_j` joules.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

from hybridlab.processes.fork_server import STOPPED
from hybridlab.simulation import NO_TIMES

SCHEMA_VERSION = 1

CaseStatus = Literal["ok", "oom", "crashed", "timeout", "skipped", "invalid"]
Name = Literal["cases", "trials", "spans", "samples", "ledgers", "probes", "cycles", "claims"]

#: The moment of a ledger at which models that work at once held most together.
AT_ONCE = "both at work"

_UNITS = {
    "_bytes_per_s": "bytes/s",
    "_bytes": "bytes",
    "_per_s": "1/s",
    "_rps": "requests/s",
    "_share": "of 1",
    "_s": "s",
    "_j": "J",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Columns that stand first in every table."""

    run_id: Annotated[str, "name of the run's folder"]
    case_id: Annotated[str | None, "the case, as in `cases`; empty where a row is of no case"]
    experiment: Annotated[str | None, "the question that the case belongs to"]
    device: Annotated[str, "where the models ran: `cpu`, `cuda:0`, `simulated:t4`"]
    evidence: Annotated[str, "`measured` or `simulated`"]
    memory_limited: Annotated[bool, "a cap made the device behave like a smaller one"]


@dataclass(frozen=True, kw_only=True)
class CaseRow(Row):
    """One pair, one way of sharing, one workload, in a process of its own: the unit of
    replication."""

    strategy: Annotated[str | None, "how the two models share the device"]
    variant: Annotated[str | None, "which kind of the strategy"]
    round: Annotated[int | None, "the round of a comparison, from 0"] = None
    llm_model: Annotated[str | None, "the audio language model's size"]
    llm_weights: Annotated[str | None, "`hub`, `local`, `random` or `pocket`"]
    llm_dtype: Annotated[str | None, "what its weights are kept in"]
    asr_model: Annotated[str | None, "the speech recogniser's size; empty without one"]
    asr_backend: Annotated[str | None, "the library that runs it"]
    asr_weights: Annotated[str | None, "`hub`, `local`, `random` or `pocket`"]
    asr_dtype: Annotated[str | None, "what its weights are kept in"]
    llm_revision: Annotated[str | None, "the hub's commit, the files' SHA-256, or the seed"] = None
    asr_revision: Annotated[str | None, "the same of the recogniser's"] = None
    status: Annotated[CaseStatus, "what became of the case"]
    reason: Annotated[str | None, "why it is not `ok`"]
    attention: Annotated[str | None, "the attention kernel that was asked for"] = None
    attention_kernel: Annotated[
        str | None, "the one that the LLM's first prompt got; empty where it is in a server"
    ] = None
    llm_logits_finite: Annotated[
        bool | None,
        "whether the LLM's first logits were finite numbers; where its dtype overflows they are "
        "not, and its texts are left out",
    ] = None
    decoding: Annotated[str | None, "the lab's own loop, or `generate`"] = None
    asr_decoding: Annotated[
        str | None, "how the recogniser's windows were decoded: with `timestamps`, or `plain`"
    ] = None
    load_order: Annotated[str | None, "which model is loaded first"] = None
    load_path: Annotated[str | None, "`direct` onto the device, or `staged` on the host"] = None
    card: Annotated[str | None, "the card of the catalog whose kernels were used"] = None
    scaling_kind: Annotated[str | None, "what grew with the request: audio or batch"] = None
    scaling_value: Annotated[float | None, "how far it grew: seconds, or requests"] = None
    limit_kind: Annotated[str | None, "what was searched for: audio_s, batch, beams …"] = None
    limit_found: Annotated[float | None, "the largest value that succeeded"] = None
    limit_hit: Annotated[bool | None, "a larger value failed; else none was tried"] = None
    audio_s: Annotated[float | None, "seconds of audio in the request"] = None
    mitigation: Annotated[str | None, "against memory growth, in a soak"] = None
    first_cycle: Annotated[int | None, "the cycle with which a soak goes on"] = None
    cycles: Annotated[int | None, "cycles of a soak"] = None
    rate_rps: Annotated[float | None, "requests that arrive, as planned"] = None
    load: Annotated[float | None, "that rate as a share of what the control served"] = None
    arrival_rate_rps: Annotated[float | None, "requests that arrived, as they really came"] = None
    process_baseline_bytes: Annotated[int | None, "in use before any model was loaded"] = None
    load_peak_bytes: Annotated[int | None, "highest in use while loading"] = None
    loaded_bytes: Annotated[int | None, "in use when all was loaded, before a request"] = None
    idle_bytes: Annotated[int | None, "in use between requests, all warm: after the last"] = None
    request_peak_bytes: Annotated[int | None, "highest in use while serving"] = None
    peak_bytes: Annotated[int | None, "the higher of load peak and request peak"] = None
    load_peak_reserved_bytes: Annotated[int | None, "the same as the allocator reserved it"] = None
    idle_reserved_bytes: Annotated[int | None, "the same as the allocator reserved it"] = None
    request_peak_reserved_bytes: Annotated[int | None, "the same as it was reserved"] = None
    capacity_bytes: Annotated[int | None, "the device's memory, or its limit"] = None
    external_bytes: Annotated[int | None, "outside the allocator when least was free"] = None
    external_reason: Annotated[str | None, "why that is not known"] = None
    untracked_children_bytes: Annotated[
        int | None, "most that uncounted child processes held; of a GPU's, part of its contexts"
    ] = None
    margin_bytes: Annotated[int | None, "free at the moment when least was"] = None
    llm_weights_bytes: Annotated[int | None, "the LLM's weights on the device"] = None
    asr_weights_bytes: Annotated[int | None, "the recogniser's weights on the device"] = None
    host_copy_bytes: Annotated[int | None, "host memory in which weights wait"] = None
    request_bytes: Annotated[int | None, "a request's peak above idle"] = None
    predicted_bytes: Annotated[
        int | None, "`peak_bytes` by the planner, above the measured process baseline"
    ] = None
    requested_bytes: Annotated[int | None, "what the allocation that failed asked for"] = None
    load_s: Annotated[float | None, "loading all models that stay loaded"] = None
    link_bytes_per_s: Annotated[float | None, "the link's own speed, host to device"] = None
    n_trials: Annotated[int | None, "requests that were served"] = None
    throughput_rps: Annotated[float | None, "requests served in a second"] = None
    request_energy_j: Annotated[float | None, "energy of the device for each request"] = None
    energy_reason: Annotated[str | None, "why that is not known"] = None
    worker_restarts: Annotated[int | None, "workers that were lost and started again"] = None
    served_by_model: Annotated[str | None, "the recogniser at the end of a fallback chain"] = None
    fallbacks: Annotated[int | None, "steps down to a smaller recogniser"] = None
    servers: Annotated[int | None, "server processes that hold the models"] = None
    server_overhead_bytes: Annotated[int | None, "what they hold beside weights"] = None
    server_overhead_reason: Annotated[str | None, "why that is not known"] = None
    gateway_bytes: Annotated[int | None, "memory of the server in front of them"] = None
    other_processes_cpu_share: Annotated[float | None, "CPU used by other processes"] = None
    other_gpu_processes: Annotated[int | None, "other processes that computed on the GPU"] = None
    other_gpu_reason: Annotated[str | None, "why that is not known"] = None
    throttled: Annotated[str | None, "why clocks were lowered; empty if they were not"] = None
    gpu_utilization_share: Annotated[float | None, "mean of NVML's utilisation"] = None
    gpu_utilization_reason: Annotated[str | None, "why that is not known"] = None
    process_cpu_s: Annotated[float | None, "CPU time of the case's own processes"] = None
    duration_s: Annotated[float | None, "from start to end of the case"] = None
    started: Annotated[str | None, "when the case was begun, ISO 8601 in UTC"] = None
    compute_threads: Annotated[int | None, "threads of torch's operations on the CPU"] = None
    cpu_capability: Annotated[str | None, "vector instructions of torch's CPU kernels"] = None
    sampler_interval_s: Annotated[float | None, "between two readings of memory"] = None
    sampler_longest_gap_s: Annotated[float | None, "the longest such time"] = None
    times_reason: Annotated[str | None, "why a simulated card's times are empty"] = None


@dataclass(frozen=True, kw_only=True)
class TrialRow(Row):
    """One request served in a case."""

    strategy: Annotated[str, "as in `cases`"]
    variant: Annotated[str, "as in `cases`"]
    round: Annotated[int | None, "as in `cases`"] = None
    request_id: Annotated[str, "the request; the same in all arms of a comparison"]
    clip_id: Annotated[str, "the audio clip"]
    audio_s: Annotated[float, "its length"]
    latency_s: Annotated[float | None, "from due (or start) to the end of the answer"]
    is_first_request: Annotated[bool, "it paid for lazy initialisation and is left out"]
    queue_time_s: Annotated[float | None, "from its arrival until it was begun"] = None
    ttft_s: Annotated[float | None, "from its start to the answer's first token"] = None
    itl_s: Annotated[float | None, "mean time between two tokens of the answer"] = None
    output_tokens: Annotated[int | None, "tokens of the answer"] = None
    tokens_per_s: Annotated[float | None, "those per second of decoding"] = None
    rtfx: Annotated[float | None, "seconds of audio for each second of latency"] = None
    transcript: Annotated[str | None, "the recogniser's text; empty for random weights"]
    transcript_finish: Annotated[
        str | None,
        "how it ended: `stop` by itself, `length` at the limit of tokens, `early` with audio left "
        "unread; empty without a text, and in runs before version 10",
    ] = None
    transcript_windows: Annotated[
        int | None, "windows that it was read in; empty where nobody tells"
    ] = None
    transcript_windows_cut: Annotated[int | None, "of them, those that did not `stop`"] = None
    reference: Annotated[str | None, "what was said, from the manifest"]
    question: Annotated[str | None, "the question about the audio"]
    answer: Annotated[str | None, "the LLM's text; empty for random weights"]
    answer_finish: Annotated[str | None, "how it ended, as `transcript_finish`"] = None
    answer_tokens: Annotated[list[int] | None, "its token ids"] = None
    expected_answer: Annotated[str | None, "the right answer, from the manifest"]
    question_type: Annotated[str | None, "the kind of question, from the manifest"] = None
    output_matches_reference: Annotated[
        bool | None,
        "token by token what each model says alone; empty where not compared, and where a text was "
        "cut short",
    ]
    cycle: Annotated[int | None, "of a soak"] = None
    served_by_model: Annotated[str | None, "the recogniser of a fallback chain"] = None
    http_overhead_s: Annotated[float | None, "what HTTP added"] = None
    gateway_s: Annotated[float | None, "what the server in front added"] = None
    queue_wait_s: Annotated[float | None, "in the server's queue"] = None
    server_work_s: Annotated[float | None, "the server's own work"] = None


@dataclass(frozen=True, kw_only=True)
class SpanRow(Row):
    """A phase of a model: load, prepare, encode, prefill, decode, copy-in …"""

    request_id: Annotated[str | None, "the request; empty while loading"]
    role: Annotated[str, "`asr`, `llm`, or `copy` for a copying thread"]
    phase: Annotated[str, "what it did"]
    start_s: Annotated[float, "since the case began"]
    end_s: Annotated[float, "since the case began"]
    bytes: Annotated[int | None, "moved, in phases that move weights"]


@dataclass(frozen=True, kw_only=True)
class SampleRow(Row):
    """A reading of memory."""

    t_s: Annotated[float, "since the case began"]
    source: Annotated[str, "which counter was read"]
    bytes: Annotated[int, "in use"]


@dataclass(frozen=True, kw_only=True)
class LedgerRow(Row):
    """Bytes of one owner at one moment; a moment's rows sum to the device's capacity."""

    moment: Annotated[str, "load_peak, idle, request_peak, or a phase"]
    owner: Annotated[str, "whose they are; the rest is `unattributed`"]
    bytes: Annotated[int, "held"]
    predicted_bytes: Annotated[int | None, "what the planner predicts for them"]
    in_process: Annotated[bool | None, "of the case's allocator; else outside of it"] = None


@dataclass(frozen=True, kw_only=True)
class ProbeRow(Row):
    """One try at a limit."""

    limit_kind: Annotated[str, "what was tried to grow"]
    value: Annotated[float | None, "how large it was"]
    repeat: Annotated[int, "which repetition"]
    succeeded: Annotated[bool, "whether it was served"]
    phase: Annotated[str | None, "in which phase it failed"]
    requested_bytes: Annotated[int | None, "what the allocation that failed asked for"]
    free_bytes: Annotated[int | None, "that were left to it"]
    allocator_cache_bytes: Annotated[int | None, "reserved and unused then"]
    message: Annotated[str | None, "the library's own words"]
    seconds: Annotated[float | None, "how long it took"] = None
    strategy: Annotated[str | None, "as in `cases`"] = None
    variant: Annotated[str | None, "as in `cases`"] = None
    from_size: Annotated[str | None, "a fallback: the recogniser that was left"] = None
    to_size: Annotated[str | None, "a fallback: the smaller one"] = None
    at_request: Annotated[str | None, "a fallback: `load`, or the request it came at"] = None


@dataclass(frozen=True, kw_only=True)
class CycleRow(Row):
    """One cycle of a soak."""

    strategy: Annotated[str, "as in `cases`"]
    mitigation: Annotated[str, "against memory growth"]
    cycle: Annotated[int, "from 0"]
    request_id: Annotated[str | None, "what was served"]
    latency_s: Annotated[float | None, "of that request"]
    maintenance_s: Annotated[float | None, "of the mitigation after it"]
    output_unchanged: Annotated[
        bool | None, "the same text as in the first cycle; empty where one was cut short"
    ]
    allocated_bytes: Annotated[int | None, "by tensors, afterwards"]
    reserved_bytes: Annotated[int | None, "by the allocator"]
    external_bytes: Annotated[int | None, "of the device, outside the allocator"]
    resident_bytes: Annotated[int | None, "of the process, in host memory"]
    pinned_bytes: Annotated[int | None, "page-locked host memory"]
    peak_active_bytes: Annotated[int | None, "highest in the cycle"]
    peak_reserved_bytes: Annotated[int | None, "highest in the cycle"]
    largest_block_bytes: Annotated[int | None, "largest free block"]
    fragmentation: Annotated[float | None, "1 - active / reserved"]


@dataclass(frozen=True, kw_only=True)
class ClaimRow(Row):
    """A statement of the source document, judged."""

    claim: Annotated[str, "its id in `params/claims.yaml`"]
    quote: Annotated[str | None, "the document's words"] = None
    line: Annotated[int | None, "where in the document they stand"] = None
    kind: Annotated[str | None, "what it is about"] = None
    expected: Annotated[str | None, "what of it is judged"]
    measured: Annotated[str | None, "what this run says"]
    verdict: Annotated[str, "supported, refuted, inconclusive, not testable here"]
    reason: Annotated[str | None, "why, and on which device"]
    basis: Annotated[str | None, "ids of the cases behind it, the sum that decides, or `planner`"]


TABLES: dict[str, type[Row]] = {
    "cases": CaseRow,
    "trials": TrialRow,
    "spans": SpanRow,
    "samples": SampleRow,
    "ledgers": LedgerRow,
    "probes": ProbeRow,
    "cycles": CycleRow,
    "claims": ClaimRow,
}


@dataclass(frozen=True)
class Column:
    """A column as `docs/columns.md` shows it."""

    name: str
    kind: str
    unit: str
    description: str
    #: Every row has it, if only as an empty value; others may lack it.
    required: bool
    types: tuple[type, ...]


def columns(table: str) -> dict[str, Column]:
    """The columns of a table by name, in their order."""
    found = _COLUMNS.get(table)
    if found is None:
        raise ValueError(f"there is no table {table!r}; choose one of: {', '.join(TABLES)}")
    return found


def required_columns(table: str) -> tuple[str, ...]:
    """Those that a frame of this table always has, also where it is empty."""
    return tuple(name for name, column in columns(table).items() if column.required)


def checked(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with whole numbers where whole numbers are meant (NVML's readings are floats);
    `ValueError` for a column that the table does not have, lacks, or has of another type."""
    known = columns(table)
    unknown = [name for name in row if name not in known]
    if unknown:
        raise ValueError(f"{table} has no column {', '.join(unknown)}; add it to results/schema.py")
    missing = [name for name, column in known.items() if column.required and name not in row]
    if missing:
        raise ValueError(f"a row of {table} lacks {', '.join(missing)}")
    found = dict(row)
    for name, value in row.items():
        allowed = known[name].types
        if int in allowed and type(value) is float and float not in allowed and value.is_integer():
            found[name] = int(value)
        elif type(value) not in allowed:
            raise ValueError(
                f"{table}.{name} = {value!r} is {type(value).__name__}, not {known[name].kind}"
            )
    return found


def _column(name: str, hint: Any, *, required: bool) -> Column:
    hint, description = typing.get_args(hint)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds: list[type] = []
    for option in options:
        origin = typing.get_origin(option)
        kinds.append(str if origin is Literal else origin or option)
    if float in kinds:
        kinds.append(int)
    kind = " | ".join(kind.__name__ for kind in kinds if kind not in (types.NoneType,))
    kind = kind.replace("float | int", "float")
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    unit = "bytes" if name == "bytes" else unit
    return Column(name, kind, unit, description, required, tuple(kinds))


def _columns_of(row: type[Row]) -> dict[str, Column]:
    hints = typing.get_type_hints(row, include_extras=True)
    found = fields(row)
    # `Row` comes first, whatever has a default
    return {
        one.name: _column(one.name, hints[one.name], required=one.default is MISSING)
        for one in found
    }


COMMON_COLUMNS = tuple(one.name for one in fields(Row))
_COLUMNS: dict[str, dict[str, Column]] = {name: _columns_of(row) for name, row in TABLES.items()}

#: Columns of times and of what follows from them: empty in rows of a simulated card.
_TIMES = (
    *("throughput_rps", "link_bytes_per_s", "request_energy_j", "tokens_per_s", "rtfx"),
    *("other_processes_cpu_share", "gpu_utilization_share"),
)
_LENGTHS_OF_AUDIO = ("audio_s",)
#: Columns of texts and of what follows from them: empty where no values were computed.
TEXT_COLUMNS = (
    *("transcript", "answer", "answer_tokens", "output_tokens"),
    *("transcript_finish", "transcript_windows", "transcript_windows_cut", "answer_finish"),
    *("output_matches_reference", "output_unchanged"),
)
#: Tables whose rows are points in time.
TIMELINES = ("spans", "samples")


def was_stopped(row: Mapping[str, Any] | Any) -> bool:
    """Whether the reader stopped this case, or those before it and it with them."""
    return bool(row.get("reason") == STOPPED)


def is_time(column: str) -> bool:
    """Whether a column holds times, or what follows from them."""
    return column in _TIMES or (column.endswith("_s") and column not in _LENGTHS_OF_AUDIO)


def without_times(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The values that replace a row's times, and why they are empty."""
    replaced = dict.fromkeys(filter(is_time, row))
    return {**replaced, "times_reason": NO_TIMES} if table == "cases" else replaced
