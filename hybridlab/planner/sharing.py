"""What each way of sharing a card takes, moment by moment: both resident, at once, or in turn."""

from __future__ import annotations

from typing import Any

from hybridlab.catalog import Attention, Card, LoadPath, VoxtralModel, WhisperModel
from hybridlab.planner.estimate import Estimate, largest, total
from hybridlab.planner.pair import context_bytes, default_voxtral_dtype, slack_bytes
from hybridlab.planner.requests import Request, voxtral_phases, whisper_phases
from hybridlab.planner.weights import (
    voxtral_weights_bytes,
    whisper_load_peak_bytes,
    whisper_weights_bytes,
)

#: Bytes by owner.
Owners = dict[str, Estimate]


def ways(card: Card, whisper: WhisperModel, voxtral: VoxtralModel, **pair: Any) -> Owners:
    """Highest bytes on the device by strategy, loading included; arguments as of `way_ledgers`."""
    return {
        way: largest([total(list(owners.values())) for owners in moments.values()])
        for way, moments in way_ledgers(card, whisper, voxtral, **pair).items()
    }


def way_ledgers(
    card: Card,
    whisper: WhisperModel,
    voxtral: VoxtralModel,
    *,
    backend: str,
    dtype: str,
    voxtral_dtype: str | None = None,
    request: Request | None = None,
    attention: Attention = "auto",
    load_path: LoadPath = "direct",
) -> dict[str, dict[str, Owners]]:
    """By strategy the owners of every byte at each moment that could be its worst.

    `solo`: Voxtral alone does both jobs. `sequential`: both resident, one at a time. `parallel, one
    process`: both at work at once. `parallel, two processes`: the same with a second driver
    context. `swapping Whisper`: Voxtral stays, Whisper comes and goes. `swapping Whisper,
    overlapped`: it comes while Voxtral works. `swapping both`: one at a time is there at all;
    `fixed block`: in a block of the larger's size that is never given back. Arenas keep a copy of
    every swapped tenant on the host as well.
    """
    request = request or Request()
    voxtral_dtype = voxtral_dtype or default_voxtral_dtype(card)
    kept: dict[str, Any] = {"backend": backend, "dtype": dtype}
    context = {"context": context_bytes(card)}
    v = {"voxtral weights": Estimate.exact(voxtral_weights_bytes(voxtral, dtype=voxtral_dtype))}
    w_bytes = whisper_weights_bytes(whisper, **kept)
    w = {"whisper weights": Estimate.exact(w_bytes)}
    w_peak = whisper_load_peak_bytes(whisper, **kept, path=load_path)
    copy = {"second copy": Estimate.exact(w_peak - w_bytes)}
    phases = voxtral_phases(voxtral, request, dtype=voxtral_dtype, card=card, attention=attention)
    v_request = largest(list(phases.values()))
    w_request = largest(list(whisper_phases(whisper, request, **kept, card=card).values()))
    one_at_work = _at_work(card, request=largest([v_request, w_request]))
    v_at_work = _at_work(card, voxtral_request=v_request)
    w_at_work = _at_work(card, whisper_request=w_request)
    both_at_work = _at_work(card, voxtral_request=v_request, whisper_request=w_request)

    resident = context | v | w
    second = {"context": context["context"] * 2}
    parallel = {
        "loading": resident | copy,
        "at rest": resident,
        "both at work": resident | both_at_work,
    }
    whisper_alone = {
        "Whisper comes in": context | w | copy,
        "Whisper at work": context | w | w_at_work,
    }
    larger = v if v["voxtral weights"].expected >= w_bytes else w
    return {
        "solo": {"at rest": context | v, "at work": context | v | v_at_work},
        "sequential": {
            "loading": resident | copy,
            "at rest": resident,
            "one at work": resident | one_at_work,
        },
        "parallel, one process": parallel,
        "parallel, two processes": {moment: own | second for moment, own in parallel.items()},
        "swapping Whisper": {
            "at rest": context | v,
            "Voxtral at work": context | v | v_at_work,
            "Whisper comes in": resident | copy,
            "Whisper at work": resident | w_at_work,
        },
        "swapping Whisper, overlapped": {
            "at rest": context | v,
            "Whisper comes in": resident | copy | v_at_work,
            "Whisper at work": resident | w_at_work,
        },
        "swapping both": {"Voxtral at work": context | v | v_at_work, **whisper_alone},
        "swapping both, fixed block": {
            "at work": context | larger | one_at_work,
            "Whisper comes in": whisper_alone["Whisper comes in"],
        },
    }


def _at_work(card: Card, **requests: Estimate) -> Owners:
    """The transient bytes of requests that are served together, and what the allocator holds."""
    named = {name.replace("_", " "): size for name, size in requests.items()}
    return {**named, "allocator slack": total([slack_bytes(card, s) for s in requests.values()])}
