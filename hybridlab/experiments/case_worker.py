"""The inside of a case: load, warm up, measure, write rows. Runs in the case's own process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hybridlab.devices import resolve_device
from hybridlab.devices.memory_limit import limit_memory
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import UnavailableError, WeightsError
from hybridlab.experiments.case import Case
from hybridlab.experiments.case_context import (
    CaseContext,
    case_columns,
    write_samples,
)
from hybridlab.experiments.live_feed import LiveFeed
from hybridlab.experiments.workloads import (
    fallback,
    interference,
    limit_search,
    reference,
    request_size,
    serve,
    soak,
)
from hybridlab.models.base import compute_values
from hybridlab.profiling.contention import ContentionMonitor, contention_reason
from hybridlab.profiling.memory_profiler import MemoryProfiler
from hybridlab.results.manifest import write_json
from hybridlab.results.writer import TableWriter


@dataclass(frozen=True)
class Work:
    """What happens inside a case. Where its bytes are the result its times are not quoted, and no
    other process makes them invalid."""

    run: Callable[[CaseContext], None]
    about_bytes: bool = False


WORK: dict[str, Work] = {
    "serve": Work(serve.run),
    "reference": Work(reference.run),
    "poisson_arrivals": Work(serve.run_arrivals),
    "interference": Work(interference.run),
    "soak": Work(soak.run),
    "limit": Work(request_size.run, about_bytes=True),
    "limit_search": Work(limit_search.find_largest, about_bytes=True),
    "headroom": Work(limit_search.find_minimum_headroom, about_bytes=True),
    "fallback": Work(fallback.run, about_bytes=True),
}


def execute(
    case: Case, writer: TableWriter, result_path: Path, live_path: Path | None = None
) -> None:
    """Run a case and leave its rows and its result in files; `live_path` is where a live view reads
    what it does.

    Out of memory and a lack of the machine, weights included, are results, in whatever stage they
    come; any other fault ends the process with its traceback in the case's log, which the
    notebook's side records as a crash.
    """
    quiet_libraries()
    compute_values(case.llm, case.asr, *case.candidates)
    torch.manual_seed(case.llm.seed)
    try:
        result = _measured(case, writer, result_path, live_path)
    except Exception as error:
        result = _as_result(error, "set-up")  # the work's own have been taken as results by then
    write_json(result_path, result)


def _measured(
    case: Case, writer: TableWriter, result_path: Path, live_path: Path | None
) -> dict[str, Any]:
    """The case's own columns of `cases`."""
    device, work = resolve_device(case.device), WORK[case.work]
    started = time.perf_counter()
    if case.phases or work.about_bytes:
        device.count_exactly()
    with MemoryProfiler(device) as meter, ExitStack() as stack:
        context = CaseContext(
            case,
            device,
            meter,
            writer,
            started,
            stack=stack,
            log=result_path.with_suffix(".log"),
            broadcast=LiveFeed(live_path),
        )
        monitor = ContentionMonitor(device)
        with limit_memory(device, case.memory_limit_bytes):
            _introduce(context)
            outcome: dict[str, Any] = {"status": "ok", "reason": ""}
            try:
                work.run(context)
            except Exception as error:
                outcome = _as_result(error, context.phase)
            columns = case_columns(context) | monitor.columns()
    disturbed = contention_reason(columns, max_other_cpu_share=case.max_other_cpu_share)
    timed = device.keeps_times and not (work.about_bytes or case.phases)
    if disturbed and timed and outcome["status"] == "ok":
        outcome = {"status": "invalid", "reason": disturbed}
    write_samples(context)
    return {**columns, **context.result, **outcome}


def _introduce(context: CaseContext) -> None:
    """What a live view is sent once: the capacity, and what others hold of the device."""
    if context.broadcast.watched:
        device, others = context.device, context.device.memory_owners().external
        context.broadcast.tell(
            capacity_bytes=device.capacity_bytes(),
            memory_limited=device.memory_limited,
            others_bytes=others.get("other processes", 0),
        )


def _as_result(error: Exception, phase: str) -> dict[str, Any]:
    """What became of a case in which this came up in this phase; another fault is raised again."""
    if isinstance(error, (UnavailableError, WeightsError)):
        return {"status": "skipped", "reason": str(error)}
    failure = out_of_memory(error)  # libraries wrap it in whatever they like
    if failure is None:
        raise error
    return {
        "status": "oom",
        "reason": f"in phase {phase}: {failure.message}",
        "requested_bytes": failure.requested_bytes,
    }


def quiet_libraries() -> None:
    """Progress bars and advice of the libraries have no place in a case's log."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
