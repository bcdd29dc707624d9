"""A simulated card as the notebook's own process knows it: by the catalog alone.

Models run on it in processes that were started with its libraries, where it is a `CudaDevice` like
any other; this process has the user's own torch and cannot touch it.
"""

from __future__ import annotations

from hybridlab.catalog import Card
from hybridlab.device.base import Reading
from hybridlab.device.cuda import CudaDevice
from hybridlab.simulation import PREFIX


class SimulatedCard(CudaDevice):
    """What the catalog says of a card. Nobody else uses it: every run has one of its own."""

    def __init__(self, card: Card) -> None:
        super().__init__(0)
        self.card = card
        self.name = PREFIX + card.name

    def title(self) -> str:
        return f"{self.card.title} (simulated)"

    def _capacity_bytes(self) -> int:
        return self.card.usable_bytes

    def free_bytes(self) -> int:
        return self.card.usable_bytes

    def native_dtypes(self) -> tuple[str, ...]:
        return self.card.native_dtypes

    def neighbours(self) -> Reading:
        return Reading(0.0)
