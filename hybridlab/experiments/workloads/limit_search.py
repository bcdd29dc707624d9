"""Work of a case that looks for limits: largest requests by bisection, least headroom.

Every probe is a real request with real allocations; a failure is the allocator's own error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.audio import Samples, of_length, read_audio
from hybridlab.devices import Device
from hybridlab.devices.memory_limit import MemoryLimit, make_memory_limit
from hybridlab.devices.out_of_memory import OutOfMemory, out_of_memory
from hybridlab.errors import UnavailableError
from hybridlab.experiments.case import Case
from hybridlab.experiments.case_context import CaseContext
from hybridlab.experiments.workloads import common
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.planner.limits import largest_fitting
from hybridlab.strategies import Request, Strategy
from hybridlab.units import MIB

#: The search ends when the room is known to this share of what is certainly enough.
HEADROOM_SHARE = 1 / 64
LEAST_ENOUGH_BYTES = 64 * MIB


def try_request(
    context: CaseContext, work: Callable[[], Any], *, free_bytes: int | None = None, **labels: Any
) -> bool:
    """Run `work` once and write a row of `probes`; True when it had the memory it wanted. Its slack
    is that of the moment when it failed, or was done."""
    device, failure = context.device, None
    began = time.perf_counter()
    free = device.free_bytes() if free_bytes is None else free_bytes
    try:
        work()
        seconds, slack = time.perf_counter() - began, allocator_cache_bytes(device)
    except Exception as error:  # libraries wrap an allocation failure in whatever they like
        # here, while the error still holds what the failed work had taken
        seconds, slack = time.perf_counter() - began, allocator_cache_bytes(device)
        failure = out_of_memory(error)
        if failure is None:
            raise
    write_probe(context, failure, slack, free_bytes=free, seconds=seconds, **labels)
    device.release()
    return failure is None


def allocator_cache_bytes(device: Device) -> int | None:
    """What the device's allocator holds and does not use now; None where it keeps nothing."""
    reserved = device.reserved_bytes()
    return None if reserved is None else reserved - device.used_bytes()


def write_probe(
    context: CaseContext, failure: OutOfMemory | None, slack: int | None, **values: Any
) -> None:
    """A row of `probes`; `failure` None where what was tried had its memory."""
    context.writer.append(
        "probes",
        {
            **values,
            "succeeded": failure is None,
            "phase": context.phase if failure else None,
            "requested_bytes": failure.requested_bytes if failure else None,
            "allocator_cache_bytes": slack,
            "message": failure.message if failure else None,
        },
    )


# ----------------------------------------------------------------------------------------- limits


def find_largest(context: CaseContext) -> None:
    """The longest audio, largest batch or most beams that the resident pair serves."""
    case, strategy = context.case, common.strategy_of(context)
    common.load(context, strategy)
    ask, most = str(case.options["limit_kind"]), int(case.options["most"])
    samples = read_audio(Path(case.requests[0].path))
    unit = catalog.WINDOW_S if ask == "audio_s" else 1

    def fits(count: int) -> bool:
        work = partial(_sized_request, case, strategy, samples, ask, count)
        return try_request(context, work, limit_kind=ask, value=count * unit, repeat=0)

    found = largest_fitting(fits, most=most)
    context.result["limit_found"] = found * unit
    context.result["limit_hit"] = found < most  # else nothing failed up to the most that was tried
    common.close(context, strategy)


def _sized_request(case: Case, strategy: Strategy, samples: Samples, ask: str, count: int) -> None:
    """One request that is `count` windows, clips or beams large."""
    batch = [samples] * (count if ask == "batch" else 1)
    if ask == "audio_s":
        batch = [of_length(samples, count * catalog.WINDOW_S - 0.1)]
    if case.asr is not None:
        beams = count if ask == "beams" else 1
        options = TranscribeOptions(
            language=case.language, max_new_tokens=case.asr_tokens, beams=beams
        )
        strategy.asr.transcribe(batch, options)
    if ask != "beams":  # beams are Whisper's: Voxtral answers greedily
        questions = [case.requests[0].question] * len(batch)
        strategy.llm.answer(batch, questions, max_new_tokens=case.answer_tokens)


# --------------------------------------------------------------------------------------- headroom


def find_minimum_headroom(context: CaseContext) -> None:
    """How little room above the resident pair a request can live with, once per request."""
    case, strategy = context.case, common.strategy_of(context)
    common.bring_up(context, strategy)
    needed = (context.meter.peak_bytes("request") or 0) - context.loaded.used_bytes
    enough = max(LEAST_ENOUGH_BYTES, 2 * needed)
    with make_memory_limit(context.device) as limit:
        for number, spec in enumerate(case.requests):
            request = common.request_of(context, spec)
            _least_room(context, limit, strategy, request, number, enough)
    common.close(context, strategy)


def _least_room(
    context: CaseContext,
    limit: MemoryLimit,
    strategy: Strategy,
    request: Request,
    repeat: int,
    enough: int,
) -> None:
    """Bisect on the room; too little is known to fail at nothing, enough is doubled until it is."""

    def survives(room: int) -> bool:
        limit.leave(room)
        alive = try_request(
            context,
            lambda: strategy.serve(request),
            free_bytes=room,
            limit_kind="headroom",
            value=room,
            repeat=repeat,
        )
        limit.lift()
        return alive

    low, high = 0, enough
    while not survives(high):
        low, high = high, 2 * high
        if high > context.device.capacity_bytes():
            raise UnavailableError("a request fails with all the memory of the device to spare")
    while high - low > HEADROOM_SHARE * enough:
        middle = (low + high) // 2
        low, high = (low, middle) if survives(middle) else (middle, high)
