"""A memory limit: a device has a smaller card's memory, and really runs out of it.

On a CPU the limit is the kernel's own (`RLIMIT_DATA` of this process). On CUDA a ballast process
holds the difference, so that every allocator meets the limit, torch's or not. Bytes measured under
a limit may speak for the smaller card, times never do.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from hybridlab.devices import Device
from hybridlab.devices.procfs import status_bytes
from hybridlab.errors import UnavailableError
from hybridlab.units import MIB, format_bytes

#: How far the free bytes may be from what was asked of a ballast process.
TOLERANCE_BYTES = 4 * MIB
#: More free bytes than any card has: a ballast process that is to leave so much holds nothing.
HOLD_NOTHING = 2**63 - 1
#: A card that is larger by less than this is no larger: a ballast's own context takes as much.
LEAST_LARGER_BYTES = 256 * MIB


class MemoryLimit(ABC):
    """Limits how many more bytes can be allocated from now on; can be set again and again."""

    @abstractmethod
    def leave(self, free_bytes: int) -> None:
        """Leave room for `free_bytes` more than is allocated now."""

    @abstractmethod
    def lift(self) -> None:
        """Take the limit away; it can be set again."""

    def close(self) -> None:
        """Take the limit away for good."""
        self.lift()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_memory_limit(device: Device) -> MemoryLimit:
    """The memory limit of this device's kind, not set yet."""
    return RlimitMemory() if device.is_host else BallastProcess(device)


class RlimitMemory(MemoryLimit):
    """This process' private memory is limited by the kernel; an allocation above fails for real."""

    def __init__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_DATA)

    def leave(self, free_bytes: int) -> None:
        # only the soft limit: it can be raised again
        wanted = status_bytes("VmData") + max(0, int(free_bytes))
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, self._before[1]))

    def lift(self) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._before)


class BallastProcess(MemoryLimit):
    """A process that takes device memory until only so much is free. It starts with the first limit
    and stays until this is closed: starting takes seconds, growing and shrinking milliseconds."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._process: subprocess.Popen[str] | None = None

    def leave(self, free_bytes: int) -> None:
        self.device.release()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hybridlab.devices.memory_limit", self.device.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        found_bytes = self._hold_all_but(self._process, free_bytes)
        if abs(found_bytes - free_bytes) > TOLERANCE_BYTES:
            self.close()
            raise UnavailableError(
                f"{format_bytes(free_bytes)} free were asked of {self.device.name} and "
                f"{format_bytes(found_bytes)} are: beside other processes and the ballast's own "
                "context the card holds less than the memory limit"
            )

    def _hold_all_but(self, process: subprocess.Popen[str], free_bytes: int) -> int:
        """Send the ballast its target; the bytes that are free then."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{int(free_bytes)}\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
        except BrokenPipeError:  # it has ended
            answer = ""
        if not answer.isdigit():
            self.close()
            raise UnavailableError(
                f"the ballast on {self.device.name} ended before it held what the memory limit "
                "leaves out; the log of the case says why"
            )
        return int(answer)

    def lift(self) -> None:
        if self._process is not None:
            self._hold_all_but(self._process, HOLD_NOTHING)

    def close(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # at the end of its stdin the ballast ends
        self._process.wait(timeout=30)
        self._process = None


def is_larger(device: Device, capacity_bytes: int) -> bool:
    """Whether a limit of so many bytes would take any memory away."""
    if device.is_host:  # its limit is this process' own, whatever the host has
        return True
    return device.capacity_bytes() >= capacity_bytes + LEAST_LARGER_BYTES


@contextmanager
def limit_memory(device: Device, capacity_bytes: int) -> Iterator[None]:
    """Inside, this device has `capacity_bytes` in all (0: its own): what is taken already counts.
    `UnavailableError` where other processes have taken it all. A card that is no larger stays as
    it is.

    On a CPU the process as it is now (Python and its libraries) does not count, as a card does not
    hold them either.
    """
    if not capacity_bytes or not is_larger(device, capacity_bytes):
        yield
        return
    taken = ballast = 0
    if not device.is_host:
        device.release()  # what the allocator keeps is free from now on
        taken = device.capacity_bytes() - device.free_bytes()
        ballast = device.capacity_bytes() - capacity_bytes  # but for its rounding
    if taken >= capacity_bytes:
        raise UnavailableError(
            f"{format_bytes(taken)} of {device.name} are in use already, and the memory limit is "
            f"{format_bytes(capacity_bytes)} in all; end the other processes and repeat"
        )
    with make_memory_limit(device) as limit:
        limit.leave(capacity_bytes - taken)
        device.set_memory_limit(capacity_bytes, ballast_bytes=ballast)
        try:
            yield
        finally:
            device.set_memory_limit(None)


def hold(device: str, targets: Iterator[int]) -> Iterator[int]:
    """For each target of free bytes, hold the rest of the card; yields what is free then.

    Asks the driver for the whole card's free bytes, so its own context is part of what it holds.
    """
    import torch

    held: list[torch.Tensor] = []
    for target in targets:
        held.clear()
        torch.cuda.empty_cache()
        for _ in range(8):  # blocks are rounded to 2 MiB: a few rounds come close enough
            free, _ = torch.cuda.mem_get_info(device)
            if free - target <= TOLERANCE_BYTES // 2:
                break
            held.append(torch.empty(free - target, dtype=torch.uint8, device=device))
        yield int(torch.cuda.mem_get_info(device)[0])


def main() -> None:
    """The ballast process: reads targets from stdin, a line each, and writes what is free then."""
    for free in hold(sys.argv[1], map(int, sys.stdin)):
        sys.stdout.write(f"{free}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
