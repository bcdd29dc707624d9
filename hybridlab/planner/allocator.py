"""What a caching allocator holds beside the bytes that are asked of it."""

from __future__ import annotations

from hybridlab import catalog
from hybridlab.catalog import Card
from hybridlab.catalog.kernels import Kernel
from hybridlab.planner.estimate import ZERO, Estimate
from hybridlab.units import MIB

#: Unused parts of segments beside resident weights: lowest, expected, highest. Small and middle
#: blocks come from segments of 2 and 20 MiB, and some of what loading held is kept.
RESIDENT_CACHE_BYTES = (2 * MIB, 40 * MIB, 200 * MIB)
#: Unused while a request's peak is reached, as a share of its transient bytes. Measured on
#: simulated cards over sizes, backends, dtypes, 30 s to 10 min and one or four rows
#: (`benchmarks/planner_accuracy.py`): few large blocks where scores are built, many of unlike
#: sizes where they are not.
SHARE_WITH_SCORES = (0.0, 0.05, 0.13)
SHARE_WITHOUT_SCORES = (0.0, 0.18, 0.33)


def resident_cache_bytes(card: Card) -> Estimate:
    """What is reserved and unused while nothing is at work."""
    return ZERO if card is catalog.HOST else Estimate(*RESIDENT_CACHE_BYTES)


def request_cache_bytes(card: Card, transient: Estimate, *, kernel: Kernel) -> Estimate:
    """What is reserved and unused beside a request of so many transient bytes: nothing on a host,
    and in CTranslate2, whose memory is the driver's own pool."""
    if card is catalog.HOST or kernel == "scores":
        return ZERO
    low, expected, high = SHARE_WITH_SCORES if kernel == "math" else SHARE_WITHOUT_SCORES
    return Estimate(
        int(low * transient.low), int(expected * transient.expected), int(high * transient.high)
    )
