"""What each way of sharing a card takes, moment by moment: both resident, at once, or in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridlab.catalog import Attention, Card, LoadPath, VoxtralModel, WhisperModel
from hybridlab.planner.activations import Request, voxtral_phases, whisper_phases
from hybridlab.planner.estimate import Estimate, largest, total
from hybridlab.planner.memory_plan import (
    allocator_cache_bytes,
    context_bytes,
    default_voxtral_dtype,
)
from hybridlab.planner.weights import (
    voxtral_weights_bytes,
    whisper_load_peak_bytes,
    whisper_weights_bytes,
)

#: Bytes by owner.
MemoryByOwner = dict[str, Estimate]


def memory_by_strategy(
    card: Card, whisper: WhisperModel, voxtral: VoxtralModel, **pair: Any
) -> MemoryByOwner:
    """Highest bytes on the device by strategy, loading included; arguments as of
    `ledger_by_strategy`."""
    return {
        way: largest([total(list(owners.values())) for owners in moments.values()])
        for way, moments in ledger_by_strategy(card, whisper, voxtral, **pair).items()
    }


def ledger_by_strategy(
    card: Card,
    whisper: WhisperModel,
    voxtral: VoxtralModel,
    *,
    backend: str,
    dtype: str,
    llm_dtype: str | None = None,
    request: Request | None = None,
    attention: Attention = "auto",
    load_path: LoadPath = "direct",
) -> dict[str, dict[str, MemoryByOwner]]:
    """By strategy the owners of every byte at each moment that could be its worst.

    `solo`: Voxtral alone does both jobs. `sequential`: both resident, one at a time. `parallel, one
    process`: both at work at once. `parallel, two processes`: the same with a second driver
    context. `swapping Whisper`: Voxtral stays, Whisper comes and goes. `swapping Whisper,
    overlapped`: it comes while Voxtral works. `swapping both`: one at a time is there at all;
    `fixed block`: in a block of the larger's size that is never given back. Arenas keep a copy of
    every swapped tenant on the host as well.
    """
    request = request or Request()
    llm_dtype = llm_dtype or default_voxtral_dtype(card)
    kept: dict[str, Any] = {"backend": backend, "dtype": dtype}
    context = {"context": context_bytes(card)}
    v = {"llm weights": Estimate.exact(voxtral_weights_bytes(voxtral, dtype=llm_dtype))}
    w_bytes = whisper_weights_bytes(whisper, **kept)
    w = {"asr weights": Estimate.exact(w_bytes)}
    w_peak = whisper_load_peak_bytes(whisper, **kept, path=load_path)
    copy = {"second copy": Estimate.exact(w_peak - w_bytes)}
    phases = voxtral_phases(voxtral, request, dtype=llm_dtype, card=card, attention=attention)
    v_request = largest(list(phases.values()))
    w_request = largest(list(whisper_phases(whisper, request, **kept, card=card).values()))
    work = {
        "one": _at_work(card, request=largest([v_request, w_request])),
        "llm": _at_work(card, llm_request=v_request),
        "asr": _at_work(card, asr_request=w_request),
        "both": _at_work(card, llm_request=v_request, asr_request=w_request),
    }
    resident = context | v | w
    second = {"context": context["context"] * 2}
    resting = {"loading": resident | copy, "at rest": resident}
    parallel = {**resting, "both at work": resident | work["both"]}
    return {
        "solo": {"at rest": context | v, "at work": context | v | work["llm"]},
        "sequential": {**resting, "one at work": resident | work["one"]},
        "parallel, one process": parallel,
        "parallel, two processes": {moment: own | second for moment, own in parallel.items()},
        **_swapping(context, v, w, copy, work),
    }


def _swapping(
    context: MemoryByOwner,
    v: MemoryByOwner,
    w: MemoryByOwner,
    copy: MemoryByOwner,
    work: Mapping[str, MemoryByOwner],
) -> dict[str, dict[str, MemoryByOwner]]:
    """The moments of every way in which weights come and go."""
    voxtral_works = {"Voxtral at work": context | v | work["llm"]}
    beside = {"Whisper at work": context | v | w | work["asr"]}
    comes_alone = {"Whisper comes in": context | w | copy}
    larger = max(v, w, key=lambda weights: total(list(weights.values())).expected)
    return {
        "swapping Whisper": {
            "at rest": context | v,
            **voxtral_works,
            "Whisper comes in": context | v | w | copy,
            **beside,
        },
        "swapping Whisper, overlapped": {
            "at rest": context | v,
            "Whisper comes in": context | v | w | copy | work["llm"],
            **beside,
        },
        "swapping both": {
            **voxtral_works,
            **comes_alone,
            "Whisper at work": context | w | work["asr"],
        },
        "swapping both, fixed block": {
            "at work": context | larger | work["one"],
            **comes_alone,
        },
    }


def _at_work(card: Card, **requests: Estimate) -> MemoryByOwner:
    """The transient bytes of requests that are served together, and what the allocator holds."""
    named = {name.replace("_", " "): size for name, size in requests.items()}
    return {
        **named,
        "allocator cache": total([allocator_cache_bytes(card, s) for s in requests.values()]),
    }
