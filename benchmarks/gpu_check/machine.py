"""The card that is checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

from hybridlab.devices import card_of, resolve_device
from hybridlab.devices.nvml import nvml_facts
from hybridlab.results.manifest import provenance
from hybridlab.simulation import STATE_VARIABLE


@dataclass(frozen=True, kw_only=True)
class Machine:
    title: str
    capacity_bytes: int
    #: Its name in the catalog; '' where it is no card of it.
    card: str
    #: A rehearsal: a simulated card has no clock.
    simulated: bool

    @classmethod
    def here(cls) -> Self:
        """The first card that CUDA shows; `UnavailableError` where there is none."""
        device = resolve_device("cuda")
        card = card_of(device)
        return cls(
            title=device.title(),
            capacity_bytes=device.capacity_bytes(),
            card=card.name if card else "",
            simulated=STATE_VARIABLE in os.environ,
        )

    def facts(self) -> dict[str, Any]:
        return {
            "gpu": self.title,
            "capacity_bytes": self.capacity_bytes,
            "card": self.card or None,
            "evidence": "simulated" if self.simulated else "measured",
            **provenance(),
            "readings": nvml_facts(),
        }
