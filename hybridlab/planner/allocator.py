"""What a caching allocator holds beside the bytes that are asked of it."""

from __future__ import annotations

from collections.abc import Mapping

from hybridlab import catalog
from hybridlab.catalog import Attention, Card, VoxtralModel, WhisperModel
from hybridlab.catalog.kernels import Kernel
from hybridlab.planner.activations import (
    Request,
    voxtral_kernel,
    voxtral_phases,
    whisper_kernel,
    whisper_phases,
)
from hybridlab.planner.estimate import ZERO, Estimate, largest
from hybridlab.units import MIB

#: Unused parts of segments beside resident weights: lowest, expected, highest. Small and middle
#: blocks come from segments of 2 and 20 MiB, and some of what loading held is kept.
RESIDENT_CACHE_BYTES = (2 * MIB, 40 * MIB, 200 * MIB)
#: Unused while a request's peak is reached, as a share of its transient bytes: lowest, expected,
#: highest, by the phase of the peak, or `scores` where attention builds them; and of weights that
#: are allocated tensor by tensor. Measured on simulated cards over sizes, backends, dtypes, 30 s to
#: 10 min and one or four rows: an encoder's blocks of unlike sizes fit into each other's segments
#: worst, a matrix of scores has a segment for itself, and so has a tensor of 10 MiB and more,
#: rounded up to 2 MiB.
SHARES = {
    "tensors": (0.0, 0.03, 0.10),
    "scores": (0.0, 0.06, 0.13),
    "encode": (0.0, 0.32, 0.50),
    "prefill": (0.0, 0.20, 0.27),
    "decode": (0.0, 0.06, 0.13),
}


def resident_cache_bytes(card: Card) -> Estimate:
    """What is reserved and unused while nothing is at work."""
    return ZERO if card is catalog.HOST else Estimate(*RESIDENT_CACHE_BYTES)


def tensors_cache_bytes(card: Card, backend: str, n_bytes: int) -> Estimate:
    """The same beside so many bytes of a recogniser's weights, where its library allocates them one
    by one; transformers reserves one block for all."""
    if card is catalog.HOST or not catalog.backend(backend).float32_build:
        return ZERO
    return times(Estimate.exact(n_bytes), SHARES["tensors"])


def request_bytes(
    model: WhisperModel | VoxtralModel,
    request: Request,
    card: Card,
    *,
    backend: str,
    dtype: str,
    attention: Attention = "auto",
) -> tuple[Estimate, Estimate]:
    """Transient bytes of one request to a model, and what is reserved and unused at their peak."""
    if isinstance(model, VoxtralModel):
        phases = voxtral_phases(model, request, dtype=dtype, card=card, attention=attention)
        kernel = voxtral_kernel(card, request, dtype=dtype, attention=attention)
    else:
        phases = whisper_phases(model, request, backend=backend, dtype=dtype, card=card)
        kernel = whisper_kernel(card, backend=backend, dtype=dtype)
    return largest(list(phases.values())), request_cache_bytes(card, phases, kernel)


def request_cache_bytes(card: Card, phases: Mapping[str, Estimate], kernel: Kernel) -> Estimate:
    """What is reserved and unused at the peak of these phases of a request: nothing on a host, and
    in CTranslate2, whose memory is the driver's own pool."""
    if card is catalog.HOST or kernel == "scores":
        return ZERO
    phase = max(phases, key=lambda name: phases[name].expected)
    kind = {"prepare": "encode", "head": "decode"}.get(phase, phase)
    if kernel == "math" and kind != "decode":
        kind = "scores"
    return times(largest(list(phases.values())), SHARES[kind])


def times(size: Estimate, shares: tuple[float, float, float]) -> Estimate:
    """So much of each bound."""
    low, expected, high = shares
    return Estimate(int(low * size.low), int(expected * size.expected), int(high * size.high))
