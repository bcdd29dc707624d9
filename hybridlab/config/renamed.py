"""Names that changed, old to new, for what readers kept: parameters in their files, rows of their
runs (`hybridlab migrate`)."""

from __future__ import annotations

from typing import Any

#: Parameters, and the columns that hold them.
PARAMETERS = {
    "voxtral": "llm_model",
    "voxtral_weights": "llm_weights",
    "voxtral_path": "llm_path",
    "voxtral_dtype": "llm_dtype",
    "whisper_size": "asr_model",
    "whisper_backend": "asr_backend",
    "whisper_weights": "asr_weights",
    "whisper_path": "asr_path",
    "whisper_dtype": "asr_dtype",
    "whisper_sizes": "asr_models",
    "quality_sizes": "quality_models",
    "envelope": "memory_limit",
    "most_foreign_cpu": "max_other_cpu_share",
    "in_flight": "max_in_flight",
    "limit_audio_s": "scaling_audio_s",
    "limit_batches": "scaling_batches",
    "edge_asks": "limit_kinds",
    "edge_most": "limit_max",
    "edge_envelope_gb": "limit_memory_gb",
    "squeeze_strategies": "headroom_strategies",
    "squeeze_repeats": "headroom_repeats",
    "ladder": "fallback_chain",
    "ladder_backend": "fallback_backend",
    "ladder_weights": "fallback_weights",
    "ladder_new_tokens": "fallback_new_tokens",
    "ladder_envelope_gb": "fallback_memory_gb",
    "ageing_cycles": "soak_cycles",
    "ageing_requests": "soak_requests",
    "ageing_max_audio_s": "soak_max_audio_s",
    "ageing_strategies": "soak_strategies",
    "ageing_remedies": "soak_mitigations",
    "remedy_every": "mitigate_every",
}
#: Columns of every table that has them.
COLUMNS = {
    **{old: new for old, new in PARAMETERS.items() if old.startswith(("voxtral", "whisper"))},
    "enveloped": "memory_limited",
    "limit_kind": "scaling_kind",
    "limit_value": "scaling_value",
    "ask": "limit_kind",
    "largest_value": "limit_found",
    "reached": "limit_hit",
    "remedy": "mitigation",
    "base_bytes": "process_baseline_bytes",
    "steady_bytes": "idle_bytes",
    "steady_reserved_bytes": "idle_reserved_bytes",
    "outside_bytes": "external_bytes",
    "outside_reason": "external_reason",
    "voxtral_bytes": "llm_weights_bytes",
    "whisper_bytes": "asr_weights_bytes",
    "foreign_cpu_share": "other_processes_cpu_share",
    "foreign_gpu_processes": "other_gpu_processes",
    "foreign_gpu_reason": "other_gpu_reason",
    "housekeeping_s": "maintenance_s",
    "served_by": "served_by_model",
    "steps_down": "fallbacks",
    "first": "is_first_request",
    "wait_s": "queue_time_s",
    "parity": "output_matches_reference",
    "tenant": "role",
    "inside": "in_process",
    "survived": "succeeded",
    "slack_bytes": "allocator_cache_bytes",
    "when": "at_request",
    "same_text": "output_unchanged",
}
#: Columns of one table alone: `kind` is another thing in `claims`.
COLUMNS_OF = {
    "trials": {"kind": "question_type"},
    "claims": {"evidence": "basis", "sentence": "quote"},
}
#: Columns that are no more.
DROPPED = ("stable", "cleanings", "restarts")

VALUES: dict[str, dict[str, str]] = {
    "experiment": {
        "beside": "co_residency",
        "edge": "memory_limits",
        "ageing": "soak",
        "race": "strategy_comparison",
        "alone": "reference",
        "at_once": "concurrent",
        "lengths": "service_times",
        "limits": "request_scaling",
        "squeeze": "headroom",
        "arrivals": "load_sweep",
        "ladder": "fallback",
    },
    "variant": {
        "naive": "two-requests",
        "lookahead": "prefetch",
        "arena": "single-buffer",
        "arena-overlapped": "single-buffer-overlapped",
        "to-cpu": "module-to-cpu",
        "reload-warm": "reload-cached",
        "reload-cold": "reload-from-disk",
        "voxtral": "llm",
        "whisper": "asr",
    },
    "role": {"voxtral": "llm", "whisper": "asr"},
    "load_order": {"voxtral-first": "llm-first", "whisper-first": "asr-first"},
    "limit_kind": {"squeeze": "headroom", "ladder": "fallback"},
    "kind": {"ageing": "soak"},
    "moment": {"steady": "idle"},
    "owner": {
        "kept": "retained",
        "strangers": "other processes",
        "context and strangers": "context and other processes",
        "allocator slack": "allocator cache",
        "unexplained": "unattributed",
    },
}


def renamed_parameter(name: str, value: Any) -> Any:
    """A parameter's value by the present names of variants, load orders and roles."""
    if isinstance(value, list):
        return [renamed_parameter(name, item) for item in value]
    column = "variant" if name.endswith("_variants") else name.removesuffix("s")
    return renamed_value({"swap": "role"}.get(column, column), value)


def renamed_value(column: str, value: Any) -> Any:
    """A value of this (renamed) column by its present name."""
    if not isinstance(value, str):
        return value
    known = VALUES.get(column, {})
    if column in ("owner", "moment", "phase") and value not in known:
        role, _, rest = value.partition(" ")
        return f"{VALUES['role'][role]} {rest}" if rest and role in VALUES["role"] else value
    return known.get(value, value)


def renamed_row(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of an older run by the present names."""
    names = {**COLUMNS, **COLUMNS_OF.get(table, {})}
    named = {names.get(name, name): value for name, value in row.items() if name not in DROPPED}
    return {name: renamed_value(name, value) for name, value in named.items()}
