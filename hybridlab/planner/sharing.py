"""What each way of sharing a card takes, moment by moment: both resident, at once, or in turn."""

from __future__ import annotations

from collections.abc import Mapping
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
    work = {
        "one": _at_work(card, request=largest([v_request, w_request])),
        "voxtral": _at_work(card, voxtral_request=v_request),
        "whisper": _at_work(card, whisper_request=w_request),
        "both": _at_work(card, voxtral_request=v_request, whisper_request=w_request),
    }
    resident = context | v | w
    second = {"context": context["context"] * 2}
    resting = {"loading": resident | copy, "at rest": resident}
    parallel = {**resting, "both at work": resident | work["both"]}
    return {
        "solo": {"at rest": context | v, "at work": context | v | work["voxtral"]},
        "sequential": {**resting, "one at work": resident | work["one"]},
        "parallel, one process": parallel,
        "parallel, two processes": {moment: own | second for moment, own in parallel.items()},
        **_swapping(context, v, w, copy, work),
    }


def _swapping(
    context: Owners, v: Owners, w: Owners, copy: Owners, work: Mapping[str, Owners]
) -> dict[str, dict[str, Owners]]:
    """The moments of every way in which weights come and go."""
    voxtral_works = {"Voxtral at work": context | v | work["voxtral"]}
    beside = {"Whisper at work": context | v | w | work["whisper"]}
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
            "Whisper comes in": context | v | w | copy | work["voxtral"],
            **beside,
        },
        "swapping both": {
            **voxtral_works,
            **comes_alone,
            "Whisper at work": context | w | work["whisper"],
        },
        "swapping both, fixed block": {
            "at work": context | larger | work["one"],
            **comes_alone,
        },
    }


def _at_work(card: Card, **requests: Estimate) -> Owners:
    """The transient bytes of requests that are served together, and what the allocator holds."""
    named = {name.replace("_", " "): size for name, size in requests.items()}
    return {**named, "allocator slack": total([slack_bytes(card, s) for s in requests.values()])}
