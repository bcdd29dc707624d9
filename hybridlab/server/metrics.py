"""What `/metrics` tells, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hybridlab.devices.members import Member
from hybridlab.server.engine import KINDS, Engine
from hybridlab.server.pair import Pair
from hybridlab.server.uploads import Decoder

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
            "Phases: decode of the upload, wait in the queue, and those of each tenant's calls",
            ["tenant", "phase"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def watch(self, engine: Engine, pair: Pair, decoder: Decoder) -> None:
        self.registry.register(_State(engine, pair, decoder))

    def request_done(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def phase_done(self, tenant: str, phase: str, seconds: float) -> None:
        self.phases.labels(tenant, phase).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _State(Collector):
    """The engine's counts and the device's bytes, as they are now."""

    def __init__(self, engine: Engine, pair: Pair, decoder: Decoder) -> None:
        self.engine = engine
        self.pair = pair
        self.decoder = decoder

    def collect(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily(
            "hybridlab_queue", "Requests that wait", labels=["tenant", "kind"]
        )
        at_work = GaugeMetricFamily("hybridlab_at_work", "Requests at work", labels=["tenant"])
        for name, lane in self.engine.lanes.items():
            at_work.add_metric([name], len(lane.at_work))
            for kind in KINDS:
                queue.add_metric([name, kind], lane.waiting.count(kind))
        yield from (queue, at_work, *self._counts(), *self._memory())

    def _counts(self) -> Iterator[Metric]:
        names = {
            "ooms": "Allocations that failed",
            "fallbacks": "Steps down to a smaller model",
            "climbs": "Steps back up to a larger model",
            "restarts": "Workers started again",
            "cleanings": "Times that freed memory was given back",
            "batches": "Calls to the tenant",
            "batched_jobs": "Requests in these calls",
        }
        for name, told in names.items():
            family = CounterMetricFamily(f"hybridlab_{name}", told, labels=["tenant"])
            for tenant, lane in self.engine.lanes.items():
                family.add_metric([tenant], getattr(lane.counts, name))
            yield family
        yield CounterMetricFamily(
            "hybridlab_decoder_restarts",
            "Workers that decode uploads started again",
            value=self.decoder.restarts,
        )

    def _memory(self) -> Iterator[Metric]:
        ledger = GaugeMetricFamily(
            "hybridlab_ledger_bytes", "Memory of the device by owner", labels=["owner"]
        )
        room = self.pair.room
        room.look()
        for owner, n_bytes in self.pair.memory.owners(idle=room.idle).items():
            ledger.add_metric([owner], n_bytes)
        yield ledger
        tenants = GaugeMetricFamily(
            "hybridlab_tenant_bytes",
            "Memory of the device by worker: used, reserved by its allocator, highest while it was "
            "loaded (load_peak) and since then (request_peak)",
            labels=["tenant", "reading"],
        )
        for tenant in self.pair.tenants:
            for reading, n_bytes in readings_of(tenant.remote.member).items():
                tenants.add_metric([tenant.name, reading], n_bytes)
            tenants.add_metric([tenant.name, "load_peak"], self.pair.load_peaks.get(tenant.name, 0))
        yield tenants
        yield GaugeMetricFamily(
            "hybridlab_capacity_bytes",
            "Memory of the device",
            value=self.pair.facts.capacity_bytes,
        )
        yield GaugeMetricFamily(
            "hybridlab_margin_bytes",
            "What requests may take and have not taken",
            value=room.margin_bytes,
        )


def readings_of(member: Member) -> dict[str, int]:
    """Bytes of a worker as it said after its last call; on a host, as the kernel says now."""
    peak = member.peak_bytes()  # on a host this looks anew at what is shared
    return {
        "used": member.used_bytes(),
        "reserved": member.reserved_bytes(),
        "request_peak": peak,
    }
