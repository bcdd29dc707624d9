"""The ladder of a case: its rungs as strategies, and a row of `probes` for each step down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from hybridlab.experiments import serving
from hybridlab.experiments.probes import slack_bytes, write_probe
from hybridlab.experiments.rows import Context
from hybridlab.strategies import Strategy
from hybridlab.strategies.ladder import Ladder, Rung, Step


def ladder_of(context: Context, load: Callable[[Strategy], None]) -> Ladder:
    """The Whispers of the case under its strategy, variant and placement; a single rung without
    `rungs`. While a smaller one serves, it is the transcriber of `context.case`."""
    case = context.case
    stack = context.stack.enter_context(ExitStack())  # workers of the rung that serves

    def make(rung: Rung) -> Strategy:
        context.case = replace(case, transcriber=rung)
        return serving.strategy_of(context, stack=stack)

    slack: list[int | None] = []

    def failed() -> None:
        slack.append(slack_bytes(context.device))

    def stepped(step: Step) -> None:
        _write_step(context, step, slack.pop())
        stack.close()
        context.device.release()
        context.meter.forget()  # its peaks are not those of the pair that serves from now on

    rungs = case.rungs or (case.transcriber,)
    return Ladder(rungs, make=make, load=load, on_step=stepped, on_failure=failed)


def _write_step(context: Context, step: Step, slack: int | None) -> None:
    labels = {"ask": "ladder", "value": None, "repeat": 0, "free_bytes": None, "seconds": None}
    labels |= {"from_size": step.left, "to_size": step.taken, "when": step.when}
    write_probe(context, step.failure, slack, **labels)
