"""The meter proved by known answers."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.devices import CpuDevice
from hybridlab.processes.fork_server import CaseServer
from hybridlab.profiling.memory_profiler import MemoryProfiler, Sample, Sampler, thin
from hybridlab.units import MIB

KNOWN_BYTES = 512 * MIB


def measure_known_allocation(result: str) -> None:
    """In a process of its own: allocate, touch, free; the readings go to a file."""
    with MemoryProfiler(CpuDevice()) as meter:
        with meter.region("load") as load:
            kept = np.ones(KNOWN_BYTES // 8)
        loaded = meter.settle()
        with meter.region("request") as request:
            np.ones(KNOWN_BYTES // 16)
        del kept
    readings = [
        load.peak_above_start_bytes,
        loaded.used_bytes - meter.process_baseline_bytes,
        request.peak_above_start_bytes,
    ]
    with open(result, "w") as file:
        file.write(" ".join(str(r) for r in readings))


def test_an_allocation_of_known_size_reads_within_one_per_cent(
    case_server: CaseServer, tmp_path: object
) -> None:
    result = f"{tmp_path}/readings"
    assert case_server.run(measure_known_allocation, result).ok
    with open(result) as file:
        load, steady, request = (int(word) for word in file.read().split())
    assert load == pytest.approx(KNOWN_BYTES, rel=0.01)
    assert steady == pytest.approx(KNOWN_BYTES, rel=0.01)
    assert request == pytest.approx(KNOWN_BYTES / 2, rel=0.01)


def test_the_sampler_reports_the_interval_that_it_achieved() -> None:
    with Sampler(lambda: 7, interval_s=0.01) as sampler:
        time.sleep(0.3)
    achieved = sampler.achieved_interval_s()
    assert achieved is not None
    assert 0.005 < achieved < 0.1
    assert sampler.longest_gap_s() >= achieved  # type: ignore[operator]
    assert {sample.n_bytes for sample in sampler.samples} == {7}


def test_a_sampler_that_never_ran_has_no_interval() -> None:
    assert Sampler(lambda: 0).achieved_interval_s() is None


def test_a_region_that_fails_still_has_its_peak() -> None:
    with MemoryProfiler(CpuDevice()) as meter, pytest.raises(MemoryError), meter.region("request"):
        raise MemoryError
    assert meter.peak_bytes("request") is not None
    assert meter.peak_bytes("load") is None


@settings(max_examples=50)
@given(st.lists(st.integers(0, 64 * MIB), min_size=1, max_size=200))
def test_thinning_keeps_the_ends_and_the_extremes_within_a_step(values: list[int]) -> None:
    samples = [Sample(0.01 * i, n) for i, n in enumerate(values)]
    kept = thin(samples)
    assert kept[0] == samples[0]
    assert kept[-1] == samples[-1]
    assert max(s.n_bytes for s in kept) >= max(values) - MIB
    assert [s.t_s for s in kept] == sorted({s.t_s for s in kept})
