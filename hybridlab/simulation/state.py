"""The file that says which simulated cards there are and who holds what of them.

Every process maps it (`csrc/card.h` mirrors its layout). It is made here from the catalog, and can
be looked at and changed from Python without any of the native libraries.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridlab import catalog
from hybridlab.errors import ParameterError
from hybridlab.units import KIB, MIB

MAX_CARDS = 8
MAX_USERS = 1024
_MAGIC = 0x31647261436C6248
_HIDE_PIDS, _NVML_ABSENT, _POISON = 1, 2, 4
_HEADER = struct.Struct("<QIIQQii32s")
_CARD = struct.Struct("<96s16s4Q16I")
_ACTIVITY = struct.Struct("<5Q")
_USER = struct.Struct("<ii4Q")
_CARDS_AT = _HEADER.size
_ACTIVITIES_AT = _CARDS_AT + MAX_CARDS * _CARD.size
_USERS_AT = _ACTIVITIES_AT + MAX_CARDS * _ACTIVITY.size
_SIZE = _USERS_AT + MAX_USERS * _USER.size

#: NVIDIA's driver as NVML names it, and the CUDA that it speaks (13.0).
DRIVER_VERSION = "580.82.07"
CUDA_VERSION = 13_000


@dataclass(frozen=True)
class Architecture:
    """What all cards of a compute capability share (CUDA C++ programming guide, table "technical
    specifications per compute capability")."""

    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int
    shared_optin_bytes: int  # most that one block may ask for
    shared_multiprocessor_bytes: int


ARCHITECTURES = {
    (7, 5): Architecture(1_024, 16, 64 * KIB, 64 * KIB),
    (8, 0): Architecture(2_048, 32, 163 * KIB, 164 * KIB),
    (8, 6): Architecture(1_536, 16, 99 * KIB, 100 * KIB),
    (8, 9): Architecture(1_536, 24, 99 * KIB, 100 * KIB),
    (9, 0): Architecture(2_048, 32, 227 * KIB, 228 * KIB),
}


@dataclass(frozen=True)
class Chip:
    """What CUDA and NVML say of a card and the planner never asks (data sheets; the name as
    CUDA reports it; idle power: typical)."""

    device_name: str
    multiprocessors: int
    l2_bytes: int
    clock_mhz: int
    power_limit_w: int
    idle_power_w: int


CHIPS = {
    "t4": Chip("Tesla T4", 40, 4 * MIB, 1_590, 70, 10),
    "l4": Chip("NVIDIA L4", 58, 48 * MIB, 2_040, 72, 13),
    "a10g": Chip("NVIDIA A10G", 80, 6 * MIB, 1_710, 300, 17),
    "rtx-3060": Chip("NVIDIA GeForce RTX 3060", 28, 3 * MIB, 1_777, 170, 13),
    "rtx-4090": Chip("NVIDIA GeForce RTX 4090", 128, 72 * MIB, 2_520, 450, 20),
    "a100-40": Chip("NVIDIA A100-SXM4-40GB", 108, 40 * MIB, 1_410, 400, 50),
    "a100-80": Chip("NVIDIA A100-SXM4-80GB", 108, 40 * MIB, 1_410, 400, 60),
    "h100": Chip("NVIDIA H100 80GB HBM3", 132, 50 * MIB, 1_980, 700, 70),
    "h200": Chip("NVIDIA H200", 132, 50 * MIB, 1_980, 700, 75),
}
IDLE_CLOCK_MHZ = 300


@dataclass(frozen=True)
class User:
    """What one living process holds of one card."""

    pid: int
    card: int
    context_bytes: int
    device_bytes: int
    pinned_bytes: int


@dataclass(frozen=True)
class Activity:
    """What has happened on one card since the state was created."""

    launches: int
    to_device_bytes: int
    to_host_bytes: int
    on_device_bytes: int


@dataclass(frozen=True)
class Simulated:
    """One card of the state, in the order of the PCI bus, which is NVML's."""

    name: str
    uuid: str
    pci_bus_id: str
    total_bytes: int
    usable_bytes: int
    context_bytes: int
    library_bytes: int
    activity: Activity


def create(
    path: Path,
    cards: Sequence[str],
    *,
    pinned_limit_bytes: int = 0,
    hide_pids: bool = False,
    nvml: bool = True,
    poison: bool = False,
) -> None:
    """Writes a fresh state of `cards`, names of the catalog, with nothing on them.

    `pinned_limit_bytes` is the most host memory that all processes together may pin, 0 for no
    limit. `hide_pids` names no process through NVML, as in a container. Without `nvml` its library
    is not found. `poison` delays copies as long as CUDA allows and fills fresh memory with NaN, so
    that memory used before its time or after it shows.
    """
    if not 0 < len(cards) <= MAX_CARDS:
        raise ParameterError(f"{len(cards)} cards; simulate 1 to {MAX_CARDS}")
    flags = _HIDE_PIDS * hide_pids | _NVML_ABSENT * (not nvml) | _POISON * poison
    header = _HEADER.pack(
        _MAGIC,
        len(cards),
        flags,
        pinned_limit_bytes,
        time.monotonic_ns(),
        CUDA_VERSION,
        0,
        DRIVER_VERSION.encode(),
    )
    known = [catalog.card(name) for name in cards]
    records = b"".join(_record(card, i, rank) for i, (card, rank) in enumerate(_ranked(known)))
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes((header + records).ljust(_SIZE, b"\0"))
    fresh.chmod(0o600)
    fresh.replace(path)


def _ranked(cards: list[catalog.Card]) -> list[tuple[catalog.Card, int]]:
    """Each card with its place when the fastest comes first; equals keep their order."""
    order = sorted(range(len(cards)), key=lambda i: -cards[i].memory_bandwidth)
    return [(card, order.index(i)) for i, card in enumerate(cards)]


def usable_bytes(card: catalog.Card) -> int:
    """What CUDA reports as the total; the driver reserves whole pages of 64 KiB."""
    return card.usable_bytes // (64 * KIB) * 64 * KIB


def _record(card: catalog.Card, index: int, rank: int) -> bytes:
    if card.name not in CHIPS:
        raise ParameterError(
            f"card {card.name!r} cannot be simulated yet: it has no entry in CHIPS of "
            "hybridlab/simulation/state.py"
        )
    chip, shape = CHIPS[card.name], ARCHITECTURES[card.compute_capability]
    context, with_libraries, _ = card.context_bytes
    return _CARD.pack(
        chip.device_name.encode(),
        uuid.uuid5(uuid.NAMESPACE_OID, f"{card.name} {index}").bytes,
        card.nominal_bytes,
        usable_bytes(card),
        context,
        with_libraries - context,
        0,  # PCI domain
        index + 1,  # PCI bus
        0,  # PCI device
        *card.compute_capability,
        chip.multiprocessors,
        shape.threads_per_multiprocessor,
        shape.blocks_per_multiprocessor,
        shape.shared_optin_bytes,
        shape.shared_multiprocessor_bytes,
        chip.l2_bytes,
        rank,
        chip.clock_mhz,
        IDLE_CLOCK_MHZ,
        chip.power_limit_w * 1_000,
        chip.idle_power_w * 1_000,
    )


# ---------------------------------------------------------------------------------------- looking


def read(path: Path) -> list[Simulated]:
    """The cards of a state file and what has happened on them."""
    data = _data(path)
    count = _HEADER.unpack_from(data)[1]
    return [_simulated(data, index) for index in range(count)]


def _simulated(data: bytes, index: int) -> Simulated:
    name, raw, total, usable, context, library, domain, bus, device, *_ = _CARD.unpack_from(
        data, _CARDS_AT + index * _CARD.size
    )
    launches, _, *copied = _ACTIVITY.unpack_from(data, _ACTIVITIES_AT + index * _ACTIVITY.size)
    return Simulated(
        name.rstrip(b"\0").decode(),
        f"GPU-{uuid.UUID(bytes=raw)}",
        f"{domain:08X}:{bus:02X}:{device:02X}.0",
        total,
        usable,
        context,
        library,
        Activity(launches, *copied),
    )


def users(path: Path) -> list[User]:
    """Who holds something of a card now; a process that has ended holds nothing."""
    data = _data(path)
    found = []
    for at in range(_USERS_AT, _SIZE, _USER.size):
        pid, card, start, context, device, pinned = _USER.unpack_from(data, at)
        if pid and _start_ticks(pid) == start:
            found.append(User(pid, card, context, device, pinned))
    return found


def used_bytes(path: Path, card: int = 0) -> int:
    """What all processes together hold of a card, contexts included."""
    return sum(u.context_bytes + u.device_bytes for u in users(path) if u.card == card)


def inject(path: Path, *, pid: int, n_bytes: int) -> None:
    """Makes a living process hold `n_bytes` of the first card, as one that computes there does: a
    stranger for tests, which goes when its process ends. Another call for it replaces the first."""
    start = _start_ticks(pid)
    if start == 0:
        raise ParameterError(f"no process {pid}: only a living one holds memory of a card")
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the native side's lock; closing releases it
        data = _data(path)
        slots = {at: _USER.unpack_from(data, at) for at in range(_USERS_AT, _SIZE, _USER.size)}
        own = [at for at, user in slots.items() if user[:2] == (pid, 0)]
        free = [at for at, user in slots.items() if not user[0]]
        file.seek([*own, *free][0])
        file.write(_USER.pack(pid, 0, start, 0, n_bytes, 0))


def _data(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) != _SIZE or _HEADER.unpack_from(data)[0] != _MAGIC:
        raise ParameterError(f"{path} is not the state of a simulated card")
    return data


def _start_ticks(pid: int) -> int:
    """Start time of a living process in clock ticks since boot; 0 where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text[text.rindex(")") + 2 :].split()
    return 0 if fields[0] in "ZX" else int(fields[19])
