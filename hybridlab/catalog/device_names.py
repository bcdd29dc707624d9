"""How a device is spelled: `auto`, or a name of one of the kinds of `DEVICES`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hybridlab.catalog.cards import CARDS, Card
from hybridlab.catalog.registry import Registry
from hybridlab.errors import ParameterError

#: Before the name of a card of the catalog: a simulated one.
PREFIX = "simulated:"


@dataclass(frozen=True, kw_only=True)
class DeviceKind:
    """Devices of one kind: the names that they go by, and what opens one of them."""

    name: str
    pattern: str  #: regular expression of the whole name
    spelling: str  #: as help and messages show it
    open: str  #: `module:function` from the name to a `hybridlab.devices.Device`


DEVICES: Registry[DeviceKind] = Registry(
    "device",
    [
        DeviceKind(name="cpu", pattern="cpu", spelling="cpu", open="hybridlab.devices:open_cpu"),
        DeviceKind(
            name="cuda",
            pattern=r"cuda(:\d+)?",
            spelling="cuda, cuda:N",
            open="hybridlab.devices:open_cuda",
        ),
        DeviceKind(
            name="simulated",
            pattern=f"{PREFIX}.*",
            spelling=f"{PREFIX}CARD",
            open="hybridlab.devices:open_simulated",
        ),
    ],
)


def simulated_card(device: str) -> Card | None:
    """The card of a device spelled `simulated:t4`; None for a device that is none of these."""
    if not device.startswith(PREFIX):
        return None
    name = device.removeprefix(PREFIX)
    if name not in CARDS:
        raise ParameterError.unknown_name("simulated card", name, CARDS)
    return CARDS[name]


def device_kind(name: str) -> DeviceKind:
    """The kind of a device of this name; `ParameterError` for one that no machine has."""
    simulated_card(name)
    for kind in DEVICES.values():
        if re.fullmatch(kind.pattern, name):
            return kind
    raise ParameterError(f"device {name!r} is not known; choose {spellings()}")


def spellings() -> str:
    """What a device may be called, for help and messages."""
    *known, last = ("auto", *(kind.spelling for kind in DEVICES.values()))
    return f"{', '.join(known)} or {last}"


def check_device(name: str) -> None:
    """`ParameterError` for the name of a device that no machine has."""
    if name != "auto":
        device_kind(name)
