"""Whose bytes they are when two models work at once: each one's share of the joint peak.

The allocator reports one peak for both models. On CUDA every model gets a stream of its
own for one request and the allocator's history is replayed by stream; on a CPU every model's
thread traces its tensors. Models in processes of their own have an allocator each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from hybridlab.devices import Device

#: A context around a model's share of a request, by the model's name, in whatever thread that runs.
Around = Callable[[str], AbstractContextManager[Any]]


class PeakTracker:
    """Bytes by name, and what each name had when their sum was highest."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.peak_bytes = 0
        self.at_peak: dict[str, int] = {}
        self._lock = threading.RLock()  # a tensor may be freed while another one is counted

    def put(self, name: str, n_bytes: int) -> None:
        """`name` has so many bytes from now on."""
        with self._lock:
            self.now[name] = n_bytes
            together = sum(self.now.values())
            if together > self.peak_bytes:
                self.peak_bytes, self.at_peak = together, dict(self.now)


def attribution(device: Device, tally: PeakTracker) -> AbstractContextManager[Around]:
    """Inside, what models take on this device is put down in `tally`, by the end at the latest."""
    if device.tracked_processes:
        return _by_process(device, tally)
    return _by_stream(device, tally) if device.counts_tensors else _by_thread(tally)


@contextmanager
def _by_thread(tally: PeakTracker) -> Iterator[Around]:
    """Tensors by the thread that made them: torch's dispatch modes are a thread's own."""
    from hybridlab.profiling.live_tensors import LiveTensors

    yield lambda name: LiveTensors(on_change=partial(tally.put, name))


@contextmanager
def _by_stream(device: Device, tally: PeakTracker) -> Iterator[Around]:
    """The allocator's history by stream (torch.cuda.memory: `device_traces` of a snapshot)."""
    import torch

    streams: dict[int, str] = {}

    @contextmanager
    def around(name: str) -> Iterator[None]:
        stream: Any = torch.cuda.Stream(device=device.torch_name)  # type: ignore[no-untyped-call]
        streams[int(stream.cuda_stream)] = name
        with torch.cuda.stream(stream):
            yield
            stream.synchronize()

    device.synchronize()
    torch.cuda.memory._record_memory_history(enabled="all", context=None, clear_history=True)
    try:
        yield around
    finally:
        device.synchronize()
        snapshot: Any = torch.cuda.memory._snapshot()
        torch.cuda.memory._record_memory_history(enabled=None)
    index = int(device.torch_name.partition(":")[2] or 0)
    replay(snapshot["device_traces"][index], streams, tally)


@contextmanager
def _by_process(device: Device, tally: PeakTracker) -> Iterator[Around]:
    """Models in workers: each process' own peak above what it held before. Their sum is what the
    device's peak is made of, and an upper bound, since the two need not fall together."""
    members = [member for member in device.tracked_processes if member.alive]
    before = {member.name: member.used_bytes() for member in members}
    yield lambda name: nullcontext()
    for member in members:
        tally.put(member.name, member.peak_bytes() - before[member.name])


def replay(
    events: Iterable[Mapping[str, Any]], names: Mapping[int, str], tally: PeakTracker
) -> None:
    """Run the history through `tally`. Blocks that were there before it began, or are there when it
    has ended (a stream's workspace), belong to no request; a block that is freed is its owner's
    until the device is done with it."""
    events = list(events)
    outliving = _outliving(events)
    owners: dict[int, tuple[str, int]] = {}
    for number, event in enumerate(events):
        name, address = names.get(event["stream"]), event["addr"]
        if number in outliving:
            continue
        if event["action"] == "alloc" and name is not None:
            owners[address] = (name, event["size"])
            tally.put(name, tally.now.get(name, 0) + event["size"])
        elif event["action"] == "free_completed" and address in owners:
            owner, size = owners.pop(address)
            tally.put(owner, tally.now[owner] - size)


def _outliving(events: Sequence[Mapping[str, Any]]) -> set[int]:
    """Which of the events allocated blocks that were never freed."""
    there: dict[int, int] = {}
    for number, event in enumerate(events):
        if event["action"] == "alloc":
            there[event["addr"]] = number
        elif event["action"] == "free_requested":
            there.pop(event["addr"], None)
    return set(there.values())
