"""Names that changed, old to new, for the parameters that readers kept in their files."""

from __future__ import annotations

from typing import Any

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
    "clean_every": "clear_cache_every",
    "restart_above": "restart_fragmentation",
    "fallback_sizes": "fallback_models",
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
#: Values of parameters by what they name.
VALUES: dict[str, dict[str, str]] = {
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
    "swap": {"voxtral": "llm", "whisper": "asr"},
    "load_order": {"voxtral-first": "llm-first", "whisper-first": "asr-first"},
    "limit_kind": {"squeeze": "headroom", "ladder": "fallback"},
}


def renamed_parameter(name: str, value: Any) -> Any:
    """A parameter's value by the present names of variants, load orders and roles."""
    if isinstance(value, list):
        return [renamed_parameter(name, item) for item in value]
    of = "variant" if name.endswith("_variants") else name.removesuffix("s")
    return VALUES.get(of, {}).get(value, value) if isinstance(value, str) else value
