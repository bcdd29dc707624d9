"""Maintenance over a strategy and a device that only count."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hybridlab import catalog
from hybridlab.devices.base import AllocatorStats
from hybridlab.errors import UnavailableError
from hybridlab.strategies import Strategy
from hybridlab.strategies.maintenance import Maintenance, WithMaintenance


class Counting:
    """Strategy and device in one: notes what is asked of it."""

    name, variant, facts = "sequential", "plain", catalog.variant("sequential", "plain")

    def __init__(self, shares: list[float]) -> None:
        self.shares = shares
        self.asked: list[str] = []

    @property
    def device(self) -> Any:
        return self

    def release(self) -> None:
        self.asked.append("release")

    def open(self) -> None:
        self.asked.append("open")

    def close(self) -> None:
        self.asked.append("close")

    def memory_stats(self) -> AllocatorStats:
        share = self.shares.pop(0)
        return AllocatorStats(peak_active_bytes=round(1000 * (1 - share)), peak_reserved_bytes=1000)


def kept(shares: list[float], requests: int, **options: Any) -> tuple[Maintenance, list[str]]:
    counting = Counting(shares)
    maintenance = Maintenance(**options)
    strategy = cast(Strategy, counting)
    assert all(maintenance.after_request(strategy) >= 0 for _ in range(requests))
    return maintenance, counting.asked


def test_by_default_nothing_is_done() -> None:
    maintenance, asked = kept([], 3)
    assert not asked
    assert maintenance.cache_clears == maintenance.reloads == 0


def test_memory_is_given_back_every_so_many_requests() -> None:
    maintenance, asked = kept([], 7, clear_cache_every=3)
    assert asked == ["release", "release"]
    assert maintenance.cache_clears == 2


def test_above_the_bound_everything_is_loaded_again() -> None:
    maintenance, asked = kept([0.1, 0.4, 0.2], 3, restart_fragmentation=0.3)
    assert asked == ["close", "release", "open"]
    assert maintenance.reloads == 1


def test_requests_on_the_way_forbid_a_restart() -> None:
    counting = Counting([])
    counting.facts = catalog.variant("sequential", "batched")
    with pytest.raises(UnavailableError, match="set restart_fragmentation"):
        WithMaintenance(cast(Strategy, counting), Maintenance(restart_fragmentation=0.5))
