"""A simulated card as the notebook's own process knows it: by the catalog alone.

Models run on it in processes that were started with its libraries, where it is a `CudaDevice` like
any other; this process has the user's own torch and cannot touch it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from hybridlab.catalog import Card
from hybridlab.catalog.device_names import PREFIX
from hybridlab.devices.base import Reading
from hybridlab.devices.cuda import CudaDevice
from hybridlab.devices.visible import Gpu


class SimulatedCard(CudaDevice):
    """What the catalog says of a card. No other process uses it: every run has one of its own."""

    keeps_times = False

    def __init__(self, card: Card) -> None:
        self.card = card
        self.index = 0
        self.name = PREFIX + card.name

    @cached_property
    def gpu(self) -> Gpu:
        return Gpu(
            uuid=self.name,
            name=f"{self.card.title} (simulated)",
            capacity_bytes=self.card.usable_bytes,
            capability=self.card.compute_capability,
            cuda_version=0,  # the libraries that are built for it say so, where it is used
        )

    def free_bytes(self) -> int:
        return self.card.usable_bytes

    def facts(self) -> dict[str, Any]:
        """The catalog's: NVML here would speak of another card."""
        return {
            "name": self.title(),
            "compute_capability": "{}.{}".format(*self.capability),
            "capacity_bytes": self.card.usable_bytes,
        }

    def other_processes(self) -> Reading:
        return Reading(0.0)
