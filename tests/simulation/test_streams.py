"""Streams, events and kernels; and the mode in which copies come late."""

from __future__ import annotations

import pytest

from tests.simulation.conftest import Bench


def test_streams_and_events_answer_as_cuda_does(bench: Bench) -> None:
    said = bench.call(
        """
        s, e, untimed, ms, p = pointer(), pointer(), pointer(), c.c_float(), c.c_int()
        assert rt.cudaStreamCreateWithPriority(c.byref(s), 1, -3) == 0
        assert rt.cudaStreamGetPriority(s, c.byref(p)) == 0
        assert rt.cudaEventCreate(c.byref(e)) == 0
        assert rt.cudaEventCreateWithFlags(c.byref(untimed), 2) == 0
        early = [rt.cudaEventElapsedTime(c.byref(ms), e, e), rt.cudaEventQuery(e)]
        for event in (e, untimed): assert rt.cudaEventRecord(event, s) == 0
        late = [rt.cudaEventElapsedTime(c.byref(ms), e, e), rt.cudaEventElapsedTime(c.byref(ms), e, untimed),
                rt.cudaEventQuery(e), rt.cudaStreamWaitEvent(None, e, 0)]
        assert rt.cudaStreamDestroy(s) == 0
        gone = [rt.cudaStreamDestroy(s), rt.cudaStreamSynchronize(s), rt.cudaEventRecord(e, s),
                rt.cudaMemcpyAsync(1, 1, 1, D2D, s)]
        say(priority=p.value, early=early, late=late, ms=ms.value, gone=gone, graph=rt.cudaStreamBeginCapture(None, 0))
        """  # noqa: E501
    )
    not_a_resource, not_supported = 400, 801
    assert said == {
        "priority": -3,
        "early": [not_a_resource, 0],
        "late": [0, not_a_resource, 0, 0],
        "ms": 0.0,
        "gone": [not_a_resource] * 4,
        "graph": not_supported,
    }


def test_launches_are_checked_against_the_card(bench: Bench) -> None:
    code = """
        class Dim(c.Structure): _fields_ = [("x", c.c_uint), ("y", c.c_uint), ("z", c.c_uint)]
        rt.cudaLaunchKernel.argtypes = [c.c_void_p, Dim, Dim, c.c_void_p, c.c_size_t, c.c_void_p]
        def launch(threads, shared=0, blocks=1):
            return rt.cudaLaunchKernel(1, Dim(blocks, 1, 1), Dim(threads, 1, 1), None, shared, None)
        n = c.c_int()
        occupancy = []
        for threads, shared in ((1024, 0), (256, 0), (64, 0), (128, 48 << 10), (128, 96 << 10)):
            assert rt.cudaOccupancyMaxActiveBlocksPerMultiprocessor(c.byref(n), None, threads, c.c_size_t(shared)) == 0
            occupancy.append(n.value)
        say(launch=[launch(256), launch(1025), launch(0), launch(256, blocks=0), launch(32, 65 << 10)],
            wish=[rt.cudaFuncSetAttribute(None, 8, 64 << 10), rt.cudaFuncSetAttribute(None, 8, 65 << 10)],
            occupancy=occupancy, counted=state.read(STATE)[0].activity.launches)
        """  # noqa: E501
    configuration, invalid = 9, 1
    t4 = bench.call(code)
    assert t4 == {
        "launch": [0, configuration, configuration, configuration, invalid],
        "wish": [0, invalid],
        "occupancy": [1, 4, 16, 1, 0],
        "counted": 1,
    }
    bench.create("h100")
    h100 = bench.call(code)
    assert h100["launch"][-1] == 0
    assert h100["occupancy"] == [2, 8, 32, 4, 2]


def test_torch_keeps_a_pool_per_stream(bench: Bench) -> None:
    said = bench.run(
        """
        import torch
        def block(): return torch.empty(4 * MIB, dtype=torch.uint8, device="cuda")
        side = torch.cuda.Stream()
        one = block(); at = one.data_ptr(); del one
        with torch.cuda.stream(side): other = block().data_ptr()
        again = block()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record(); end.record(); end.synchronize()
        say(own=again.data_ptr() == at, shared=other == at, ms=start.elapsed_time(end) >= 0,
            streams=len({s["stream"] for s in torch.cuda.memory._snapshot()["segments"]}))
        """
    )
    assert said == {"own": True, "shared": False, "ms": True, "streams": 2}


LATE = """
        s, e, pinned, n = pointer(), pointer(), pointer(), 1 << 16
        assert rt.cudaStreamCreateWithFlags(c.byref(s), 1) == 0
        assert rt.cudaEventCreate(c.byref(e)) == 0
        assert rt.cudaHostAlloc(c.byref(pinned), c.c_size_t(n), 0) == 0
        _, d = malloc(n)
        fresh = c.string_at(d.value, 2).hex()
        c.memset(pinned, 1, n)
        assert rt.cudaMemcpyAsync(d, pinned, n, H2D, s) == 0
        early = c.string_at(d.value, 2).hex()
        c.memset(pinned, 2, n)  # too early: the copy may not have been made
        assert rt.cudaEventRecord(e, s) == 0
        ready = rt.cudaEventQuery(e)
        assert WAIT == 0
        say(fresh=fresh, early=early, ready=ready, late=c.string_at(d.value, 2).hex())
"""


@pytest.mark.parametrize(
    "wait",
    [
        "rt.cudaStreamSynchronize(s)",
        "rt.cudaEventSynchronize(e)",
        "rt.cudaDeviceSynchronize()",
        "rt.cudaStreamWaitEvent(None, e, 0)",
    ],
)
def test_late_copies_show_what_came_too_early(bench: Bench, wait: str) -> None:
    code = LATE.replace("WAIT", wait)
    at_once = {"fresh": "0000", "early": "0101", "ready": 0, "late": "0101"}
    assert bench.call(code) == at_once
    bench.create("t4", poison=True)
    assert bench.call(code) == {"fresh": "ffff", "early": "ffff", "ready": 600, "late": "0202"}


def test_late_copies_find_memory_that_was_given_away_on_another_stream(bench: Bench) -> None:
    """What `record_stream` is for: without it the block is reused while a copy is under way."""
    bench.create("t4", poison=True)
    said = bench.run(
        """
        import torch
        def copied(recorded):
            source = torch.full((1 << 20,), 7, dtype=torch.uint8, pin_memory=True)
            side = torch.cuda.Stream()
            target = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
            with torch.cuda.stream(side): target.copy_(source, non_blocking=True)
            if recorded: target.record_stream(side)
            at = target.data_ptr(); del target
            mine = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
            mine.copy_(torch.full((1 << 20,), 3, dtype=torch.uint8))
            torch.cuda.synchronize()
            return mine.data_ptr() == at, int(mine.cpu()[0])
        say(forgotten=copied(False), recorded=copied(True))
        """
    )
    assert said == {"forgotten": [True, 7], "recorded": [False, 3]}
