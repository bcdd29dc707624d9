"""An envelope: a device behaves as if it had a smaller card's memory, and really runs out of it.

On a CPU the limit is the kernel's own (`RLIMIT_DATA` of this process). On CUDA another process
holds the difference, a ballast: honest for every allocator, torch's or not. Bytes measured inside
an envelope may speak for the smaller card, times never do.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from hybridlab.device import Device
from hybridlab.device.linux import status_bytes
from hybridlab.errors import UnavailableError
from hybridlab.units import format_bytes

#: A ballast ends its work when the free bytes are this close to what was asked for.
TOLERANCE_BYTES = 4 * 2**20


class Envelope(ABC):
    """Limits how many more bytes can be allocated from now on; can be set again and again."""

    @abstractmethod
    def leave(self, free_bytes: int) -> None:
        """Leave room for `free_bytes` more than is allocated now."""

    @abstractmethod
    def lift(self) -> None:
        """Take the limit away."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lift()


def make_envelope(device: Device) -> Envelope:
    """The envelope of this device's kind."""
    return DataLimit() if device.kind == "cpu" else Ballast(device)


class DataLimit(Envelope):
    """This process' private memory is limited by the kernel; an allocation above fails for real."""

    def __init__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_DATA)

    def leave(self, free_bytes: int) -> None:
        # only the soft limit: it can be raised again
        wanted = status_bytes("VmData") + max(0, int(free_bytes))
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, self._before[1]))

    def lift(self) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._before)


class Ballast(Envelope):
    """A process of its own that takes device memory until only so much is free."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._process: subprocess.Popen[str] | None = None

    def leave(self, free_bytes: int) -> None:
        self.device.release()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hybridlab.envelope", self.device.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{int(free_bytes)}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer.isdigit():
            self.lift()
            raise UnavailableError(f"the ballast on {self.device.name} failed: {answer or 'ended'}")
        if abs(int(answer) - free_bytes) > TOLERANCE_BYTES:
            self.lift()
            raise UnavailableError(
                f"{format_bytes(free_bytes)} free were asked of {self.device.name} and "
                f"{format_bytes(int(answer))} are: it holds less than the envelope is large"
            )

    def lift(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()  # its end of file tells the ballast to go
        self._process.wait(timeout=30)
        self._process = None


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


@contextmanager
def enveloped(device: Device, capacity_bytes: int) -> Iterator[None]:
    """Inside, this device has `capacity_bytes` in all: what is taken already counts.

    On a CPU the process as it is now (Python and its libraries) does not count, as a card does not
    hold them either.
    """
    if device.kind != "cpu":
        device.release()  # what the allocator keeps is free from now on
    free = device.free_bytes()
    taken = 0 if device.kind == "cpu" else device.capacity_bytes() - free
    with make_envelope(device) as envelope:
        envelope.leave(capacity_bytes - taken)
        ballast = 0 if device.kind == "cpu" else free - device.free_bytes()
        device.shrink(capacity_bytes, ballast_bytes=ballast)
        try:
            yield
        finally:
            device.shrink(None)


def main() -> None:
    """Read targets from stdin, a line each; answer with the bytes that are free then."""
    targets = (int(line) for line in sys.stdin)
    for free in hold(sys.argv[1], targets):
        sys.stdout.write(f"{free}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
