"""Work of a case that ages: many requests in one process, and what each left behind in memory."""

from __future__ import annotations

import time
from dataclasses import asdict

from hybridlab.experiments import serving
from hybridlab.experiments.rows import Context, write_trial
from hybridlab.processes.segments import expand_segments
from hybridlab.strategies import Served
from hybridlab.strategies.housekeeping import Housekeeper


def age(context: Context) -> None:
    """Mixed requests in turn, one a cycle, with one housekeeping remedy; a row of `cycles` each.

    Under `swapping` a cycle loads and unloads Whisper as well. `first_cycle` is above 0 where this
    process replaces a worker that was ended: the time it took to be ready is then housekeeping.
    """
    case = context.case
    remedy, first = str(case.options["remedy"]), int(case.options["first_cycle"])
    if remedy == "expandable-segments":
        expand_segments(context.device)
    strategy = serving.strategy_of(context)
    serving.load(context, strategy)
    housekeeping_s = context.since_start(time.perf_counter()) if first else 0.0
    every = int(case.options["every"]) if remedy == "empty-cache" else 0
    keeper = Housekeeper(strategy, clean_every=every)
    audio = serving.read_clips(context)
    said: dict[str, list[tuple[int, ...]]] = {}
    for cycle in range(first, first + int(case.options["cycles"])):
        spec = case.requests[cycle % len(case.requests)]
        request = serving.request_of(context, spec, audio[spec.clip_id])
        served = serving.measured_request(context, strategy, request)
        write_trial(context, spec, served, first=cycle == first, parity=None, cycle=cycle)
        context.enter("housekeeping")
        housekeeping_s += keeper.after_request()
        tokens = _tokens(served)
        same = said.setdefault(spec.id, tokens) == tokens
        _write_cycle(context, cycle, served, housekeeping_s=housekeeping_s, same_text=same)
        housekeeping_s = 0.0
    context.result["n_trials"] = int(case.options["cycles"])
    strategy.close()


def _tokens(served: Served) -> list[tuple[int, ...]]:
    return [tuple(served.transcript.tokens), tuple(served.answer.tokens)]


def _write_cycle(
    context: Context, cycle: int, served: Served, *, housekeeping_s: float, same_text: bool
) -> None:
    wear = context.device.wear()
    context.writer.append(
        "cycles",
        {
            "strategy": context.case.strategy,
            "remedy": context.case.options["remedy"],
            "cycle": cycle,
            "request_id": served.request.id,
            "latency_s": served.latency_s,
            "housekeeping_s": housekeeping_s,
            "same_text": same_text,
            **asdict(wear),
            "fragmentation": wear.fragmentation,
        },
    )
