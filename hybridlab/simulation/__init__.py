"""A CUDA card without a GPU: CUDA's own build of torch over stand-in libraries.

The real caching allocator, the real choice of attention kernel, streams, events, out-of-memory
errors and NVML's answers run on a CPU machine; no kernel computes. What is allocated on a simulated
card is what would be allocated on that card; its times mean nothing and are not kept.

A device is spelled `simulated:t4`, with any card of the catalog.
"""

from __future__ import annotations

from typing import Literal

from hybridlab.catalog.device_names import PREFIX

Evidence = Literal["measured", "simulated"]
#: In the environment of a process that was started with a simulated card: where its state lies.
STATE_VARIABLE = "HYBRIDLAB_SIMULATED_CARD"
#: Copies to the card of more bytes carry only their first and last page.
COPY_LIMIT_VARIABLE = "HYBRIDLAB_SIMULATED_COPY_LIMIT"
NO_TIMES = "a simulated card has no clock"
NO_TEXTS = "models of full size compute no values on a simulated card"


def evidence(device: str) -> Evidence:
    """What rows of this device speak for."""
    return "simulated" if device.startswith(PREFIX) else "measured"
