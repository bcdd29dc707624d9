"""Memory and time of processes: what psutil reads, and what only Linux and glibc know."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from hybridlab import FAMILY_VARIABLE
from hybridlab.errors import UnavailableError
from hybridlab.units import KIB

#: glibc's number of the option (malloc.h).
M_MMAP_THRESHOLD = -3
#: Linux' number of the advice (asm-generic/mman-common.h).
MADV_HUGEPAGE = 14


@cache
def page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE")


@cache
def statm(pid: int) -> int:
    """This process' memory, opened once: the sampler reads it a hundred times a second. A fork has
    another pid, and so a file of its own."""
    return os.open(f"/proc/{pid}/statm", os.O_RDONLY)


def is_own(pid: int) -> bool:
    """Whether this process, or one that it descends from, is of this process' family."""
    word = os.environ.get(FAMILY_VARIABLE, "")
    first = word.partition("-")[0]
    known = {os.getpid(), int(first) if first.isdigit() else 0}
    try:
        process = psutil.Process(pid)
        line = [process, *process.parents()]
    except psutil.NoSuchProcess:
        return False
    return any(one.pid in known or (word and _carries(one, word)) for one in line)


def _carries(process: psutil.Process, word: str) -> bool:
    """Whether the process was started with this word in its environment; another user's process,
    whose environment is not shown, was not."""
    try:
        return bool(process.environ().get(FAMILY_VARIABLE) == word)
    except psutil.Error:
        return False


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def peak_resident_bytes(pid: int) -> int:
    """Highest resident memory since `reset_peak`; 0 when the process has ended."""
    try:
        return status_bytes("VmHWM", pid)
    except (FileNotFoundError, ProcessLookupError, UnavailableError):
        return 0  # a process that is ending has a status without memory


@dataclass(frozen=True)
class Pages:
    """Resident pages of a process, in bytes. `private` ones no other process maps: its end would
    give them back; `clean` ones are those of mapped files (libraries). `inherited` ones were
    written before a fork and are still shared."""

    private_clean_bytes: int = 0
    private_dirty_bytes: int = 0
    inherited_bytes: int = 0

    @property
    def private_bytes(self) -> int:
        return self.private_clean_bytes + self.private_dirty_bytes


def pages(pid: int) -> Pages:
    """All zero when it has ended. Walks the process' page tables: takes some milliseconds."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return Pages()
    rows = dict(line.split(":", 1) for line in text.splitlines()[1:])
    names = ("Private_Clean", "Private_Dirty", "Shared_Dirty")
    return Pages(*(int(rows[name].split()[0]) * KIB for name in names))


def proportional_bytes(pid: int) -> int:
    """Resident pages of a process, each divided by how many processes map it; 0 when it has ended.
    Walks the page tables, as `pages` does."""
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def process_tree(pid: int) -> list[int]:
    """A process and all that descend from it; itself alone when it has ended."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return [pid]


def children(pid: int) -> list[int]:
    """Processes that this one has started and that have not ended."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found += map(int, path.read_text(encoding="ascii").split())
    return found


def children_bytes(counted: Collection[int]) -> int | None:
    """Memory of the processes that descend from this one, each of their pages by its share, but for
    those that are `counted` elsewhere; None where this kernel names no children
    (CONFIG_PROC_CHILDREN)."""
    if not Path(f"/proc/self/task/{os.getpid()}/children").is_file():
        return None
    left, found = children(os.getpid()), 0
    while left:
        pid = left.pop()
        left += children(pid)
        found += 0 if pid in counted else proportional_bytes(pid)
    return found


def reset_peak(pid: int | str) -> None:
    """Set VmHWM to the current resident size (man 5 proc, clear_refs)."""
    with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")


def cpu_seconds(pid: int, *, with_ended: bool = False) -> float | None:
    """Processor time that a process has used, and `with_ended` those of its children that it has
    waited for, and of theirs; None when it has ended itself."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return None
    own = times.user + times.system
    return float(own + times.children_user + times.children_system if with_ended else own)


def processor_seconds() -> float:
    """Seconds that all processors together were busy since the machine started, what a hypervisor
    took from them included."""
    t = psutil.cpu_times()
    return float(t.user + t.nice + t.system + t.irq + t.softirq + t.steal)


def throttle_counters() -> dict[str, int]:
    """How often the kernel held back the processors, by reason; without those it does not count."""
    counters = {}
    quota = Path("/sys/fs/cgroup/cpu.stat")
    if quota.is_file():
        lines = dict(line.split() for line in quota.read_text().splitlines())
        if "nr_throttled" in lines:
            counters["the container's CPU quota"] = int(lines["nr_throttled"])
    heat = list(Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count"))
    if heat:
        counters["processor heat"] = sum(int(path.read_text()) for path in heat)
    return counters


def status_bytes(field: str, pid: int | str = "self") -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * KIB
    raise UnavailableError(f"this kernel does not report {field} in /proc/{pid}/status")


class _Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2` (man 3 mallinfo)."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


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


def advise_huge_pages(address: int, n_bytes: int) -> None:
    """Ask for large pages under this memory before it is touched: fewer faults, quicker to give
    back. Only advice: a kernel that has none gives small ones."""
    start = -(-address // page_bytes()) * page_bytes()
    end = (address + n_bytes) // page_bytes() * page_bytes()
    if end > start:
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_HUGEPAGE
        )


def read_from_disk_bytes() -> int:
    """Bytes that this process has had read from disks so far; the page cache does not count."""
    return int(psutil.Process().io_counters().read_bytes)


def drop_page_cache(path: Path) -> None:
    """Let the kernel forget what it holds of this file, so that it is read from the disk again."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())  # pages not written yet would stay
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def trim_heap() -> None:
    """Give back what malloc holds without an owner; glibc only."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
