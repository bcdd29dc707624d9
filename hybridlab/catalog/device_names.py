"""How a device is spelled: `auto`, `cpu`, `cuda`, `cuda:N` or, with any card, `simulated:t4`."""

from __future__ import annotations

import re

from hybridlab import catalog
from hybridlab.errors import ParameterError

#: Before the name of a card of the catalog: a simulated one.
PREFIX = "simulated:"


def simulated_card(device: str) -> catalog.Card | None:
    """The card of a device spelled `simulated:t4`; None for a device that is none of these."""
    if not device.startswith(PREFIX):
        return None
    name = device.removeprefix(PREFIX)
    if name not in catalog.CARDS:
        raise ParameterError.unknown_name("simulated card", name, catalog.CARDS)
    return catalog.CARDS[name]


def check_device(name: str) -> None:
    """`ParameterError` for the name of a device that no machine has."""
    if simulated_card(name) is None and not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ParameterError(
            f"device {name!r} is not known; choose auto, cpu, cuda, cuda:N or simulated:CARD"
        )
