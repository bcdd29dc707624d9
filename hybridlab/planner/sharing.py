"""What each way of sharing a card takes at its worst moment: both resident, at once, or in turn."""

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


def ways(
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
) -> dict[str, Estimate]:
    """Highest bytes on the device by strategy, loading included.

    `sequential`: both resident, one at a time. `parallel, one process`: both at work at once.
    `parallel, two processes`: the same with a second driver context. `swapping Whisper`: Voxtral
    stays, Whisper comes and goes. `swapping Whisper, overlapped`: it comes while Voxtral works.
    `swapping both`: one at a time is there at all; `fixed block`: in a block of the larger's size
    that is never given back. Arenas keep a copy of every swapped tenant on the host as well.
    """
    request = request or Request()
    voxtral_dtype = voxtral_dtype or default_voxtral_dtype(card)
    kept: dict[str, Any] = {"backend": backend, "dtype": dtype}
    context = context_bytes(card)
    v = Estimate.exact(voxtral_weights_bytes(voxtral, dtype=voxtral_dtype))
    w = Estimate.exact(whisper_weights_bytes(whisper, **kept))
    w_loading = Estimate.exact(whisper_load_peak_bytes(whisper, **kept, path=load_path))
    v_phases = voxtral_phases(voxtral, request, dtype=voxtral_dtype, card=card, attention=attention)
    v_request = largest(list(v_phases.values()))
    w_request = largest(list(whisper_phases(whisper, request, **kept, card=card).values()))

    def at_work(*requests: Estimate) -> Estimate:
        return total([*requests, *(slack_bytes(card, served) for served in requests)])

    resident = total([context, v, w])
    loading = total([context, v, w_loading])
    both_at_work = largest([loading, resident + at_work(v_request, w_request)])
    voxtral_alone = total([context, v, at_work(v_request)])
    whisper_beside = largest([loading, resident + at_work(w_request)])
    whisper_alone = largest([context + w_loading, total([context, w, at_work(w_request)])])
    block = total([context, largest([v, w]), at_work(largest([v_request, w_request]))])
    return {
        "sequential": largest([loading, resident + at_work(largest([v_request, w_request]))]),
        "parallel, one process": both_at_work,
        "parallel, two processes": both_at_work + context,
        "swapping Whisper": largest([voxtral_alone, whisper_beside]),
        "swapping Whisper, overlapped": largest([loading + at_work(v_request), whisper_beside]),
        "swapping both": largest([voxtral_alone, whisper_alone]),
        "swapping both, fixed block": largest([block, context + w_loading]),
    }
