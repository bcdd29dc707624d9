"""Load peak, idle and request peak of a piece of work, as three numbers.

Peaks come from the allocator (exact); the sampler on its own thread draws the curve and reports the
interval it really achieved.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, Self

from hybridlab.devices import Device, MemoryOwners
from hybridlab.profiling.attribution import Around, PeakTracker, attribution
from hybridlab.units import MIB

SAMPLE_INTERVAL_S = 0.010
NO_OWNERS = MemoryOwners({}, {})


@dataclass(frozen=True)
class Sample:
    """Bytes in use at `t_s` on the host's perf_counter clock."""

    t_s: float
    n_bytes: int


class Sampler:
    """Reads a number at a fixed interval on a thread of its own, without drift.

    Readings are kept as two plain arrays, 16 bytes each: a long case must not see the sampler grow.
    """

    def __init__(self, read: Callable[[], int], *, interval_s: float = SAMPLE_INTERVAL_S) -> None:
        self.read = read
        self.interval_s = interval_s
        self._times_s = array("d")
        self._n_bytes = array("q")
        self.cpu_s = 0.0  # processor time that the sampler's own thread took
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        due = time.perf_counter()
        while not self._stop.is_set():
            now_s, n_bytes = time.perf_counter(), self.read()
            self._times_s.append(now_s)
            self._n_bytes.append(n_bytes)
            due += self.interval_s
            pause = due - time.perf_counter()
            if pause <= 0:  # late: take the next tick instead of catching up in a burst
                due = time.perf_counter()
            self._stop.wait(max(0.0, pause))
        self.cpu_s = time.thread_time()

    @property
    def samples(self) -> list[Sample]:
        """All readings so far, in order."""
        return [Sample(t, n) for t, n in zip(self._times_s, self._n_bytes, strict=False)]

    def achieved_interval_s(self) -> float | None:
        """Median time between two readings; None with fewer than two."""
        gaps = self._gaps()
        return statistics.median(gaps) if gaps else None

    def longest_gap_s(self) -> float | None:
        """A spike shorter than this may have been missed by the curve (never by the peaks)."""
        gaps = self._gaps()
        return max(gaps) if gaps else None

    def _gaps(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self._times_s)]


def thin(samples: list[Sample], *, step_bytes: int = MIB, step_s: float = 0.25) -> list[Sample]:
    """Fewer samples for the same curve: those around a change of at least `step_bytes`, and one
    every `step_s`."""
    kept: list[Sample] = []
    for index, sample in enumerate(samples):
        if not kept or index == len(samples) - 1:
            kept.append(sample)
        elif abs(sample.n_bytes - kept[-1].n_bytes) >= step_bytes:
            if kept[-1] is not samples[index - 1]:
                kept.append(samples[index - 1])
            kept.append(sample)
        elif sample.t_s - kept[-1].t_s >= step_s:
            kept.append(sample)
    return kept


class Listened(Protocol):
    """What reports its phases: a model."""

    on_phase: Callable[[str], None] | None


@dataclass(frozen=True)
class Ended:
    """The end of a piece of work: bytes in use, of them the request's living tensors (None: they
    cannot be told), and the owners that are not models."""

    used_bytes: int = 0
    live_bytes: int | None = 0
    account: MemoryOwners = NO_OWNERS


@dataclass(frozen=True)
class Rest:
    """Nothing is at work: bytes in use, what a caching allocator holds (None: there is none), and
    the owners that are not models."""

    used_bytes: int = 0
    reserved_bytes: int | None = None
    account: MemoryOwners = NO_OWNERS


@dataclass
class Phase:
    """The highest bytes in a piece of work, and what there was when it ended."""

    peak_bytes: int = 0
    #: Most that a caching allocator held; None where there is none.
    reserved_bytes: int | None = None
    #: Of the peak, tensors that the request made, as `LiveTensors` saw them; None where it did not.
    live_bytes: int | None = None
    ended: Ended = field(default_factory=Ended)

    def note(self, peak_bytes: int, reserved_bytes: int | None) -> None:
        """Peaks of the allocator, seen inside."""
        self.peak_bytes = max(self.peak_bytes, peak_bytes)
        self.reserved_bytes = _most(self.reserved_bytes, reserved_bytes)

    @property
    def peak_account(self) -> MemoryOwners:
        """Owners that are not models, with the slack at the peak: the most that was held less the
        most that was in use. An allocator gives nothing back by itself, so that it still holds at
        the end what it held at the peak, but the difference is unused then."""
        if self.reserved_bytes is None:
            return self.ended.account
        return self.ended.account.with_slack(self.reserved_bytes - self.peak_bytes)


@dataclass(kw_only=True)
class Region(Phase):
    """One measured piece of work, in bytes of the allocator's side."""

    name: str
    start_bytes: int
    seconds: float = 0.0
    #: Each phase of each model ('' between phases), where the profiler listens to them.
    phases: dict[str, Phase] = field(default_factory=dict)
    #: Whose bytes the peak was, where models worked at once and were told apart.
    at_once: PeakTracker | None = None

    def note_phase(self, name: str, later: Phase) -> None:
        """A phase that has ended, not for the first time perhaps."""
        self.note(later.peak_bytes, later.reserved_bytes)
        phase = self.phases.setdefault(name, Phase())
        phase.note(later.peak_bytes, later.reserved_bytes)
        phase.live_bytes = _most(phase.live_bytes, later.live_bytes)
        phase.ended = later.ended

    @property
    def peak_above_start_bytes(self) -> int:
        return self.peak_bytes - self.start_bytes


def _most(one: int | None, other: int | None) -> int | None:
    return max((n_bytes for n_bytes in (one, other) if n_bytes is not None), default=None)


def _both(
    first: Callable[[str], None] | None, second: Callable[[str], None]
) -> Callable[[str], None]:
    """Call both, the first if there is one."""

    def tell(phase: str) -> None:
        if first is not None:
            first(phase)
        second(phase)

    return tell


@dataclass
class MemoryProfiler:
    """Context manager around a case.

    >>> with MemoryProfiler(device) as meter:  # doctest: +SKIP
    ...     with meter.region("load"): load()
    ...     meter.loaded = meter.settle()
    ...     with meter.region("request"): serve()
    ...     meter.idle = meter.settle()
    >>> meter.peak_bytes("load"), meter.idle.used_bytes, meter.peak_bytes("request")
    """

    device: Device
    regions: list[Region] = field(default_factory=list)
    process_baseline_bytes: int = 0
    #: Owners that are not models, before anything was loaded.
    base_account: MemoryOwners = NO_OWNERS
    #: All is loaded and nothing was served yet; and all is warm. None before that.
    loaded: Rest | None = None
    idle: Rest | None = None

    def __enter__(self) -> Self:
        self.device.release()
        self.base_account = self.device.memory_owners()
        self.process_baseline_bytes = self.device.used_bytes()
        self.sampler = Sampler(self.device.used_bytes)
        self.sampler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.sampler.__exit__()

    @contextmanager
    def region(self, name: str) -> Iterator[Region]:
        """Measure the allocator's peak inside; regions follow each other, they do not nest."""
        self.device.synchronize()
        self.device.reset_peak()
        region = Region(name=name, start_bytes=self.device.used_bytes())
        self.regions.append(region)
        started = time.perf_counter()
        try:
            yield region
            self.device.synchronize()
        finally:  # also of a region that ran out of memory: its peak is the result
            region.seconds = time.perf_counter() - started
            region.note(self.device.peak_bytes(), self.device.peak_reserved_bytes())
            region.ended = Ended(self.device.used_bytes(), 0, self.device.memory_owners())

    def forget(self) -> None:
        """What was measured up to now is of something else: keep nothing of it but the base."""
        self.regions.clear()
        self.loaded = self.idle = None

    @contextmanager
    def phases(self, region: Region, models: Sequence[Listened]) -> Iterator[None]:
        """Inside, take the peaks of `region` apart by the models' phases.

        Costs some 0.1 ms a phase, and tracing tensors on a CPU (whose allocator keeps no account)
        costs more: not for requests whose latency is quoted, nor for models that work at once.
        """
        live = None
        if not self.device.counts_tensors:
            from hybridlab.profiling.live_tensors import LiveTensors

            live = LiveTensors()
        current = ""

        def enter(phase: str) -> None:
            nonlocal current
            used, account = self.device.used_bytes(), self.device.memory_owners()
            left = Phase(
                self.device.peak_bytes(),
                self.device.peak_reserved_bytes(),
                live.take_peak() if live else None,
                Ended(used, live.now_bytes if live else None, account),
            )
            region.note_phase(current, left)
            self.device.reset_peak()
            current = phase

        before = [model.on_phase for model in models]
        for model, listener in zip(models, before, strict=True):
            model.on_phase = _both(listener, enter)
        try:
            with live or nullcontext():
                yield
        finally:
            enter("")
            for model, listener in zip(models, before, strict=True):
                model.on_phase = listener

    @contextmanager
    def apart(self, region: Region) -> Iterator[Around]:
        """Inside, tell the models apart that work at once on one request: for their bytes, not for
        times that are quoted."""
        tally = PeakTracker()
        with attribution(self.device, tally) as around:
            yield around
        region.at_once = tally

    def settle(self) -> Rest:
        """Give freed memory back and read what stays."""
        self.device.synchronize()
        self.device.release()
        device = self.device
        return Rest(device.used_bytes(), device.reserved_bytes(), device.memory_owners())

    def peak_bytes(self, name: str) -> int | None:
        """Highest peak over all regions of that name; None where none was measured."""
        return max((r.peak_bytes for r in self.regions if r.name == name), default=None)

    def peak_reserved_bytes(self, name: str) -> int | None:
        """Most that a caching allocator held over all regions of that name; None without one."""
        held = (region.reserved_bytes for region in self.regions if region.name == name)
        return max((n_bytes for n_bytes in held if n_bytes is not None), default=None)
