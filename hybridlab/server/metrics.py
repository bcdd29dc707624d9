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

from hybridlab.server.audio_decoder import AudioDecoder
from hybridlab.server.jobs import Kind
from hybridlab.server.model_pool import ModelPool
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Role
from hybridlab.server.supervisor import Counts

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics(Collector):
    """Counted as requests pass; what `watch` names is read when it is asked for."""

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

    def request_done(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def phase_done(self, role: str, phase: str, seconds: float) -> None:
        self.phases.labels(role, phase).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def watch(
        self, schedulers: Mapping[Role, ModelScheduler], pool: ModelPool, decoder: AudioDecoder
    ) -> None:
        """Show the schedulers' counts and the device's bytes, too."""
        self.schedulers, self.pool, self.decoder = schedulers, pool, decoder
        self.registry.register(self)

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
        pool, budget = self.pool, self.pool.budget
        ledger = GaugeMetricFamily(
            "hybridlab_ledger_bytes", "Memory of the device by owner", labels=["owner"]
        )
        budget.refresh()
        for owner, n_bytes in pool.memory.owners(idle=budget.idle).items():
            ledger.add_metric([owner], n_bytes)
        yield ledger
        workers = GaugeMetricFamily(
            "hybridlab_model_bytes",
            "Memory of the device by model: used, reserved by its allocator, highest while it was "
            "loaded (load_peak) and since then (request_peak)",
            labels=["role", "reading"],
        )
        for model in pool.models:
            member = model.remote.member
            workers.add_metric([model.role, "load_peak"], pool.load_peaks.get(model.role, 0))
            # on a host this looks anew at what is shared, before the bytes used are told
            workers.add_metric([model.role, "request_peak"], member.peak_bytes())
            workers.add_metric([model.role, "used"], member.used_bytes())
            workers.add_metric([model.role, "reserved"], member.reserved_bytes())
        yield workers
        for name, what, value in (
            ("hybridlab_capacity_bytes", "Memory of the device", pool.info.capacity_bytes),
            ("hybridlab_margin_bytes", "What requests may take and have not", budget.margin_bytes),
        ):
            yield GaugeMetricFamily(name, what, value=value)
