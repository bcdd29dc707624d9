"""Whose bytes they are: a replay of the allocator's history, and tensors by thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import torch

from hybridlab.devices import CpuDevice
from hybridlab.profiling.attribution import Around, PeakTracker, attribution, replay

MIB = 2**20
VOXTRAL, WHISPER, OTHER = 11, 12, 0


NAMES = {VOXTRAL: "llm", WHISPER: "asr"}


def freed(*blocks: tuple[int, int]) -> list[dict[str, Any]]:
    actions = ("free_requested", "free_completed")
    return [event(action, *block, WHISPER) for block in blocks for action in actions]


def event(action: str, address: int, size: int, stream: int) -> dict[str, Any]:
    return {"action": action, "addr": address, "size": size, "stream": stream}


def test_the_history_is_replayed_by_stream() -> None:
    history = [
        event("free_completed", 1, 5, VOXTRAL),  # was there before the history began
        event("alloc", 2, 100, VOXTRAL),
        event("alloc", 3, 7, OTHER),  # of neither model
        event("segment_alloc", 900, 1000, WHISPER),
        event("alloc", 4, 60, WHISPER),
        event("free_requested", 2, 100, VOXTRAL),  # the device still reads it
        event("alloc", 5, 50, WHISPER),  # 100 + 110: the joint peak
        event("free_completed", 2, 100, VOXTRAL),
        event("alloc", 2, 150, WHISPER),  # 260 of one alone: a higher peak, with the address reused
    ]
    tally = PeakTracker()
    replay([*history[:8], *freed((4, 60), (5, 50))], NAMES, tally)
    assert tally.peak_bytes == 210
    assert tally.at_peak == {"llm": 100, "asr": 110}
    tally = PeakTracker()
    replay([*history, *freed((2, 150), (4, 60), (5, 50))], NAMES, tally)
    assert tally.at_peak == {"llm": 0, "asr": 260}
    assert tally.now == {"llm": 0, "asr": 0}


def test_a_block_that_outlives_the_history_is_of_no_request() -> None:
    """cuBLAS' workspace comes with a stream's first product and stays; an address of a block that
    was freed is used again for it."""
    history = [
        event("alloc", 4, 60, WHISPER),
        *freed((4, 60)),
        event("alloc", 4, 8_000, WHISPER),
        event("alloc", 5, 50, WHISPER),
        *freed((5, 50)),
    ]
    tally = PeakTracker()
    replay(history, NAMES, tally)
    assert tally.at_peak == {"asr": 60}
    assert tally.now == {"asr": 0}


def test_tensors_belong_to_the_thread_that_made_them() -> None:
    tally, both_hold, done = PeakTracker(), Barrier(2), Barrier(2)

    def work(around: Around, name: str, mib: int) -> None:
        with around(name):
            held = torch.zeros(mib * MIB, dtype=torch.uint8)
            both_hold.wait()
            held = held + 1  # a second copy beside the first
            done.wait()
            del held

    with attribution(CpuDevice(), tally) as around, ThreadPoolExecutor(2) as pool:
        both = [pool.submit(work, around, "llm", 30), pool.submit(work, around, "asr", 20)]
        for job in both:
            job.result()
    # who is second makes its copy beside the other's one or two blocks
    assert tally.at_peak["llm"] in (30 * MIB, 60 * MIB)
    assert tally.at_peak["asr"] in (20 * MIB, 40 * MIB)
    assert 80 * MIB <= tally.peak_bytes <= 100 * MIB
    assert tally.now == {"llm": 0, "asr": 0}
    assert sum(tally.at_peak.values()) == tally.peak_bytes
