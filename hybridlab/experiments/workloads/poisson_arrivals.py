"""Work of a case whose requests come at their own times, whether or not the last one is done."""

from __future__ import annotations

import time

import numpy as np

from hybridlab.experiments.case_context import CaseContext, write_trial
from hybridlab.experiments.workloads import common
from hybridlab.strategies import ArrivalQueue

#: Between the warm-up and the first arrival that may be due.
LEAD_S = 0.05


def run(context: CaseContext) -> None:
    """Poisson arrivals at `rate_rps`, seeded, so that every arm meets the same ones. The latency of
    a request begins when it is due and not when its service begins."""
    case = context.case
    strategy = common.strategy_of(context)
    common.bring_up(context, strategy)
    rng = np.random.default_rng(int(case.options["seed"]))
    gaps = rng.exponential(1 / float(case.options["rate_rps"]), len(case.requests))
    context.enter("request")
    with context.meter.region("request"):
        due = (time.perf_counter() + LEAD_S + np.cumsum(gaps)).tolist()
        asked = common.requests_of(context)
        by_id = {spec.id: (spec, due_s) for spec, due_s in zip(case.requests, due, strict=True)}
        for served in strategy.stream(ArrivalQueue(asked, due)):
            spec, due_s = by_id[served.request.id]
            write_trial(context, spec, served, is_first_request=False, due_s=due_s)
    last = max(due[-1], time.perf_counter())
    context.result["throughput_rps"] = len(due) / (last - due[0])
    context.result["n_trials"] = len(due)
    strategy.close()
