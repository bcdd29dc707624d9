"""Work of a case whose requests come at their own times, whether or not the last one is done."""

from __future__ import annotations

import time

import numpy as np

from hybridlab.experiments import serving
from hybridlab.experiments.rows import Context, write_trial
from hybridlab.strategies import Inbox

#: Between the warm-up and the first arrival that may be due.
LEAD_S = 0.05


def arrive(context: Context) -> None:
    """Poisson arrivals at `rate_rps`, seeded, so that every arm meets the same ones. The latency of
    a request begins when it is due and not when somebody has time for it."""
    case = context.case
    strategy = serving.strategy_of(context)
    serving.load(context, strategy)
    audio = serving.read_clips(context)
    serving.warm_up(context, strategy, audio)
    rng = np.random.default_rng(int(case.options["seed"]))
    gaps = rng.exponential(1 / float(case.options["rate_rps"]), len(case.requests))
    context.enter("request")
    with context.meter.region("request"):
        due = (time.perf_counter() + LEAD_S + np.cumsum(gaps)).tolist()
        asked = serving.requests_of(context, audio)
        by_id = {spec.id: (spec, due_s) for spec, due_s in zip(case.requests, due, strict=True)}
        for served in strategy.stream(Inbox(asked, due)):
            spec, due_s = by_id[served.request.id]
            write_trial(context, spec, served, first=False, parity=None, due_s=due_s)
    last = max(due[-1], time.perf_counter())
    context.result["throughput_rps"] = len(due) / (last - due[0])
    context.result["n_trials"] = len(due)
    strategy.close()
