"""What `/metrics` answers, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hybridlab.devices.process_memory import ProcessMemory
from hybridlab.server.audio_decoder import AudioDecoder
from hybridlab.server.jobs import Kind
from hybridlab.server.model_pool import ModelPool
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Role
from hybridlab.server.supervisor import Counts

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counted as requests pass; memory and queues are read when they are asked for."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hybridlab_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "hybridlab_request_seconds",
            "From the request's first byte to the answer's last",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.phases = Histogram(
            "hybridlab_phase_seconds",
            "Phases: decode of the upload, wait in the queue, and those of each model's calls",
            ["role", "phase"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def watch(
        self, schedulers: Mapping[Role, ModelScheduler], pool: ModelPool, decoder: AudioDecoder
    ) -> None:
        self.registry.register(_State(schedulers, pool, decoder))

    def request_done(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def phase_done(self, role: str, phase: str, seconds: float) -> None:
        self.phases.labels(role, phase).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _State(Collector):
    """The schedulers' counts and the device's bytes, as they are now."""

    def __init__(
        self, schedulers: Mapping[Role, ModelScheduler], pool: ModelPool, decoder: AudioDecoder
    ) -> None:
        self.schedulers = dict(schedulers)
        self.pool = pool
        self.decoder = decoder

    def collect(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily("hybridlab_queue", "Requests that wait", labels=["role", "kind"])
        at_work = GaugeMetricFamily("hybridlab_at_work", "Requests at work", labels=["role"])
        for role, scheduler in self.schedulers.items():
            at_work.add_metric([role], len(scheduler.at_work))
            for kind in get_args(Kind):
                queue.add_metric([role, kind], scheduler.queue.count(kind))
        yield from (queue, at_work, *self._counts(), *self._memory())

    def _counts(self) -> Iterator[Metric]:
        for count in fields(Counts):
            name, what = f"hybridlab_{count.name}", count.metadata["help"]
            family = CounterMetricFamily(name, what, labels=["role"])
            for role, scheduler in self.schedulers.items():
                family.add_metric([role], getattr(scheduler.counts, count.name))
            yield family
        yield CounterMetricFamily(
            "hybridlab_decoder_restarts",
            "Workers that decode uploads restarted",
            value=self.decoder.restarts,
        )

    def _memory(self) -> Iterator[Metric]:
        ledger = GaugeMetricFamily(
            "hybridlab_ledger_bytes", "Memory of the device by owner", labels=["owner"]
        )
        budget = self.pool.budget
        budget.refresh()
        for owner, n_bytes in self.pool.memory.owners(idle=budget.idle).items():
            ledger.add_metric([owner], n_bytes)
        yield ledger
        workers = GaugeMetricFamily(
            "hybridlab_model_bytes",
            "Memory of the device by model: used, reserved by its allocator, highest while it was "
            "loaded (load_peak) and since then (request_peak)",
            labels=["role", "reading"],
        )
        for model in self.pool.models:
            for reading, n_bytes in readings_of(model.remote.member).items():
                workers.add_metric([model.role, reading], n_bytes)
            workers.add_metric([model.role, "load_peak"], self.pool.load_peaks.get(model.role, 0))
        yield workers
        yield GaugeMetricFamily(
            "hybridlab_capacity_bytes",
            "Memory of the device",
            value=self.pool.info.capacity_bytes,
        )
        yield GaugeMetricFamily(
            "hybridlab_margin_bytes",
            "What requests may take and have not taken",
            value=budget.margin_bytes,
        )


def readings_of(member: ProcessMemory) -> dict[str, int]:
    """Bytes of a worker as it said after its last call; on a host, as the kernel says now."""
    peak = member.peak_bytes()  # on a host this looks anew at what is shared
    return {
        "used": member.used_bytes(),
        "reserved": member.reserved_bytes(),
        "request_peak": peak,
    }
