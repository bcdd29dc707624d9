"""Whose bytes they are when two models work at once: each one's share of the joint peak.

The allocator reports one peak for both models. On CUDA every model gets a stream of its
own for one request and the allocator's history is replayed by stream; on a CPU every model's
thread traces its tensors. Models in processes of their own have an allocator each.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Self

from hybridlab.devices import Device


class PeakTracker:
    """Bytes by name, and what each name had when their sum was highest."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.peak_bytes = 0
        self.at_peak: dict[str, int] = {}
        self.own_peaks: dict[str, int] = {}
        self._lock = threading.RLock()  # a tensor may be freed while another one is counted

    def put(self, name: str, n_bytes: int) -> None:
        """`name` has so many bytes from now on."""
        with self._lock:
            self.now[name] = n_bytes
            self.own_peaks[name] = max(self.own_peaks.get(name, 0), n_bytes)
            together = sum(self.now.values())
            if together > self.peak_bytes:
                self.peak_bytes, self.at_peak = together, dict(self.now)


class PeakAttribution(ABC):
    """A context around one request; `around` goes around each model's share of it, in whatever
    thread that runs."""

    def __init__(self) -> None:
        self.tally = PeakTracker()

    @abstractmethod
    def around(self, name: str) -> AbstractContextManager[Any]: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class TensorTraces(PeakAttribution):
    """Tensors by the thread that made them: torch's dispatch modes are a thread's own."""

    def around(self, name: str) -> AbstractContextManager[Any]:
        from hybridlab.profiling.live_tensors import LiveTensors

        return LiveTensors(on_change=partial(self.tally.put, name))


class StreamHistory(PeakAttribution):
    """The allocator's history by stream (torch.cuda.memory: `device_traces` of a snapshot)."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self._streams: dict[int, str] = {}

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        import torch

        stream: Any = torch.cuda.Stream(device=self.device.torch_name)  # type: ignore[no-untyped-call]
        self._streams[int(stream.cuda_stream)] = name
        with torch.cuda.stream(stream):
            yield
            stream.synchronize()

    def __enter__(self) -> Self:
        import torch

        self.device.synchronize()
        torch.cuda.memory._record_memory_history(enabled="all", context=None, clear_history=True)
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        self.device.synchronize()
        snapshot: Any = torch.cuda.memory._snapshot()
        torch.cuda.memory._record_memory_history(enabled=None)
        index = int(self.device.torch_name.partition(":")[2] or 0)
        replay(snapshot["device_traces"][index], self._streams, self.tally)


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


class ProcessPeaks(PeakAttribution):
    """Models in workers: each process' own peak above what it held before. Their sum is what the
    device's peak is made of, and an upper bound, since the two need not fall together."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.members = [member for member in device.tracked_processes if member.alive]

    def around(self, name: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def __enter__(self) -> Self:
        self._before = {member.name: member.used_bytes() for member in self.members}
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            self.tally.put(member.name, member.peak_bytes() - self._before[member.name])


def attribution(device: Device) -> PeakAttribution:
    """How models are told apart on this device."""
    if device.tracked_processes:
        return ProcessPeaks(device)
    return StreamHistory(device) if device.counts_tensors else TensorTraces()
