"""Arms in rounds (A B C A B C ...), and what their times and texts come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from benchmarks.peers.arms import BASELINE, Makers
from benchmarks.report import interval, seconds
from hybridlab import catalog
from hybridlab.analysis.stats import word_error_rate
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import HybridlabError, UnavailableError
from hybridlab.models import Model
from hybridlab.strategies import ArrivalQueue, CompletedRequest, Request, Strategy

#: Names under which the libraries keep the part that runs once for each token.
DECODERS = ("language_model", "decoder")


@dataclass(frozen=True)
class Said:
    """What came of one request."""

    request_id: str
    latency_s: float
    transcript: str
    answer: str


@dataclass
class Outcome:
    """One arm: its rounds, each with its seconds and what was said in it."""

    status: str = "ok"
    reason: str = ""
    seconds: list[float] = field(default_factory=list)
    said: list[list[Said]] = field(default_factory=list)
    #: Decoder passes of each model in the warm-up; None where torch does not see them.
    passes: dict[str, int | None] = field(default_factory=dict)
    weights_bytes: int | None = None

    def all_said(self) -> list[Said]:
        return [item for one_round in self.said for item in one_round]

    def rates(self) -> list[float]:
        return [len(said) / took for said, took in zip(self.said, self.seconds, strict=True)]

    def fail(self, error: Exception) -> None:
        """The arm ends here; what it lacks or why it broke is its reason."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self.status, self.reason = "failed", f"{type(error).__name__}: {lines[0]}"
        if isinstance(error, UnavailableError):
            self.status, self.reason = "skipped", lines[0]
        elif (failure := out_of_memory(error)) is not None:
            self.status, self.reason = "oom", failure.message


def run(
    makers: Makers,
    requests: Sequence[Request],
    *,
    rounds: int,
    fixed_tokens: Mapping[str, int] | None = None,
) -> dict[str, Outcome]:
    """Open and warm up all arms, then measure them in turn. `fixed_tokens`, by role: exactly so
    many must be decoded for each job, or the arm's times are invalid."""
    outcomes = {name: Outcome() for name in makers}
    strategies: dict[str, Strategy] = {}
    for name, make in makers.items():
        try:
            strategies[name] = make()
            _warm_up(strategies[name], requests[0], outcomes[name], fixed_tokens or {})
        except Exception as error:
            outcomes[name].fail(error)
            if name in strategies:
                strategies.pop(name).close()
        if name == BASELINE and outcomes[name].status != "ok":
            raise HybridlabError(f"the baseline cannot run: {outcomes[name].reason}")
    for _ in range(rounds):
        for name, strategy in strategies.items():
            if outcomes[name].status == "ok":
                _measure(strategy, requests, outcomes[name])
    for strategy in strategies.values():
        strategy.close()
    return outcomes


def _warm_up(
    strategy: Strategy, request: Request, outcome: Outcome, fixed_tokens: Mapping[str, int]
) -> None:
    """Load, and serve one request of one window, whose passes are counted."""
    strategy.open()
    window = request.samples[: round(catalog.WINDOW_S * catalog.SAMPLE_RATE_HZ)]
    sizes = [model.weights_bytes() for model in strategy.resident]
    outcome.weights_bytes = None if None in sizes else sum(size for size in sizes if size)
    with _counted(strategy.models) as counts:
        for _ in strategy.stream(ArrivalQueue([replace(request, samples=window)])):
            pass
    outcome.passes = {name: count or None for name, count in counts.items()}
    for name, tokens in fixed_tokens.items():
        # solo hears once, then does both jobs
        wanted = 2 * tokens + 1 if strategy.name == "solo" else tokens
        if counts.get(name, 0) not in (0, wanted):
            outcome.status = "invalid"
            outcome.reason = f"{counts[name]} decoder passes of {name} where the work is {wanted}"


@contextmanager
def _counted(models: Sequence[Model]) -> Iterator[dict[str, int]]:
    """Count the passes of each model's decoder; 0 where its module is not there beforehand."""
    counts = {model.name: 0 for model in models}
    with ExitStack() as handles:
        for model in models:
            module = model.module()
            if module is None:
                continue
            parts = [n for n, _ in module.named_modules() if n.rpartition(".")[2] in DECODERS]

            def count(*_: Any, name: str = model.name) -> None:
                counts[name] += 1

            decoder = module.get_submodule(min(parts, key=len))
            handles.callback(decoder.register_forward_hook(count).remove)
        yield counts


def _measure(strategy: Strategy, requests: Sequence[Request], outcome: Outcome) -> None:
    served: list[CompletedRequest] = []
    try:
        took = seconds(
            lambda: served.extend(strategy.stream(ArrivalQueue(requests))), strategy.device
        )
    except Exception as error:
        outcome.fail(error)
        return
    outcome.seconds.append(took)
    outcome.said.append(
        [Said(s.request.id, s.latency_s, s.transcript.text, s.answer.text) for s in served]
    )


# --------------------------------------------------------------------------------------- summary


def summary(
    outcomes: Mapping[str, Outcome],
    *,
    references: Mapping[str, str | None],
    answers: Mapping[str, str | None],
    with_text: Collection[str] = ("asr", "llm"),
) -> dict[str, dict[str, Any]]:
    """What each arm comes to; `references` and `answers` by request. Ratios of throughput are taken
    within a round, since machines drift. `with_text`: the roles whose words mean something."""
    control = outcomes[BASELINE]
    return {
        name: {
            **_status(outcome, with_text),
            **_speed(outcome, control),
            "wer": _word_errors(outcome, references) if "asr" in with_text else None,
            **_right_answers(outcome, answers if "llm" in with_text else {}),
            "weights_at_rest_bytes": outcome.weights_bytes,
            "decoder_passes": outcome.passes,
        }
        for name, outcome in outcomes.items()
    }


def _status(outcome: Outcome, with_text: Collection[str]) -> dict[str, Any]:
    """Invalid where a request whose words mean something got none."""
    said = outcome.all_said()
    found: dict[str, Any] = {
        "status": outcome.status,
        "reason": outcome.reason,
        "n": len(said),
        "transcripts": sum(bool(item.transcript) for item in said),
        "answers": sum(bool(item.answer) for item in said),
    }
    texts = {"asr": lambda item: item.transcript, "llm": lambda item: item.answer}
    empty = sum(not all(texts[role](item) for role in with_text) for item in said)
    if empty and outcome.status == "ok":
        found["status"] = "invalid"
        found["reason"] = f"{empty} of {len(said)} requests got an empty transcript or answer"
    return found


def _speed(outcome: Outcome, control: Outcome) -> dict[str, Any]:
    """An arm that broke in a later round has fewer rounds than the baseline."""
    rates = outcome.rates()
    over = [own / other for own, other in zip(rates, control.rates(), strict=False)]
    return {
        **interval("median_latency_s", [item.latency_s for item in outcome.all_said()]),
        "median_rps": statistics.median(rates) if rates else None,
        "values_rps": [round(rate, 4) for rate in rates],
        **interval("throughput_over_original", over),
        **interval("latency_over_original", _paired(outcome, control)),
    }


def _paired(outcome: Outcome, control: Outcome) -> list[float]:
    """Each request's latency over the baseline's of the same request in the same round."""
    found = []
    for own, other in zip(outcome.said, control.said, strict=False):
        took = {item.request_id: item.latency_s for item in other}
        found += [item.latency_s / took[item.request_id] for item in own]
    return found


def _word_errors(outcome: Outcome, references: Mapping[str, str | None]) -> float | None:
    pairs = [(references[item.request_id], item.transcript) for item in outcome.all_said()]
    known = [(reference, words) for reference, words in pairs if reference is not None]
    if not known:
        return None
    wer = word_error_rate([pair[0] for pair in known], [pair[1] for pair in known])
    return None if math.isnan(wer) else wer


def _right_answers(outcome: Outcome, answers: Mapping[str, str | None]) -> dict[str, int | None]:
    pairs = [(item.answer, answers.get(item.request_id)) for item in outcome.all_said()]
    right = [own.strip().lower() == a.strip().lower() for own, a in pairs if a is not None]
    return {"answers_right": sum(right) if right else None, "answers_known": len(right)}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The arms as columns of text."""
    shown = ["status", "n", "median_latency_s", "median_rps", "throughput_over_original", "wer"]
    frame = pd.DataFrame.from_dict(results, orient="index")[[*shown, "answers_right", "reason"]]
    return str(frame.to_string(float_format="{:.3f}".format, na_rep="-"))
