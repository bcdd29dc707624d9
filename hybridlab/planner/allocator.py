"""What a caching allocator holds beside the bytes that are asked of it."""

from __future__ import annotations

from collections.abc import Mapping

from hybridlab import catalog
from hybridlab.catalog import Card
from hybridlab.catalog.kernels import Kernel
from hybridlab.planner.estimate import ZERO, Estimate, largest
from hybridlab.units import MIB

#: Unused parts of segments beside resident weights: lowest, expected, highest. Small and middle
#: blocks come from segments of 2 and 20 MiB, and some of what loading held is kept.
RESIDENT_CACHE_BYTES = (2 * MIB, 40 * MIB, 200 * MIB)
#: Unused while a request's peak is reached, as a share of its transient bytes: lowest, expected,
#: highest, by the phase of the peak, or `scores` where attention builds them; and of a second copy
#: of weights while they are loaded. Measured on simulated cards over sizes, backends, dtypes, 30 s
#: to 10 min and one or four rows: an encoder's blocks of unlike sizes fit into each other's segments
#: worst, a matrix of scores has a segment for itself.
SHARES = {
    "loading": (0.0, 0.03, 0.10),
    "scores": (0.0, 0.06, 0.13),
    "encode": (0.0, 0.32, 0.50),
    "prefill": (0.0, 0.20, 0.27),
    "decode": (0.0, 0.06, 0.13),
}


def resident_cache_bytes(card: Card) -> Estimate:
    """What is reserved and unused while nothing is at work."""
    return ZERO if card is catalog.HOST else Estimate(*RESIDENT_CACHE_BYTES)


def loading_cache_bytes(card: Card, second_copy: int) -> Estimate:
    """What is reserved and unused while a second copy of weights is there."""
    return ZERO if card is catalog.HOST else times(Estimate.exact(second_copy), SHARES["loading"])


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
