"""A process' memory as Linux and its C library tell it."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache

from hybridlab.errors import UnavailableError
from hybridlab.units import KIB

#: glibc's number of the option (malloc.h).
M_MMAP_THRESHOLD = -3


@cache
def page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE")


@cache
def statm(pid: int) -> int:
    """This process' memory, opened once: the sampler reads it a hundred times a second. A fork has
    another pid, and so a file of its own."""
    return os.open(f"/proc/{pid}/statm", os.O_RDONLY)


def meminfo() -> dict[str, int]:
    values = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * KIB
    return values


def status_bytes(field: str) -> int:
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * KIB
    raise UnavailableError(f"this kernel does not report {field} in /proc/self/status")


class _Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2` (man 3 mallinfo)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


@dataclass(frozen=True)
class Heap:
    """What malloc holds over all its arenas and mapped blocks, and what of it has no owner."""

    held_bytes: int
    free_bytes: int


def heap() -> Heap | None:
    """None where the C library does not say (it is not glibc 2.33 or newer)."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return Heap(int(info.arena) + int(info.hblkhd), int(info.fordblks))


def set_mmap_threshold(n_bytes: int) -> None:
    """Let glibc map every block of at least so many bytes by itself, so that it is given back when
    it is freed; other C libraries are left as they are."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, n_bytes)


def trim_heap() -> None:
    """Give back what malloc holds without an owner; glibc only."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
