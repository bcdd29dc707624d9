"""Arms in rounds (A B C A B C ...), and what their times and texts come to."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.peers.arms import BASELINE, Makers
from hybridlab import catalog
from hybridlab.analysis.stats import Interval, bootstrap_interval, word_error_rate
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import HybridlabError, UnavailableError
from hybridlab.models import Model
from hybridlab.strategies import ArrivalQueue, Request, Strategy

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
    #: Decoder passes of each tenant in the warm-up; None where torch does not see them.
    passes: dict[str, int | None] = field(default_factory=dict)
    weights_bytes: int | None = None

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
    """Open and warm up all arms, then measure them in turn. `fixed_tokens`, by tenant: exactly so
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
    sizes = [tenant.weights_bytes() for tenant in strategy.resident]
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
def _counted(tenants: Sequence[Model]) -> Iterator[dict[str, int]]:
    """Count the passes of each tenant's decoder; 0 where its module is not there beforehand."""
    counts = {tenant.name: 0 for tenant in tenants}
    handles = []

    for tenant in tenants:
        module = tenant.module()
        if module is None:
            continue
        parts = [n for n, _ in module.named_modules() if n.rpartition(".")[2] in DECODERS]

        def count(*_: Any, name: str = tenant.name) -> None:
            counts[name] += 1

        decoder = module.get_submodule(min(parts, key=len))
        handles.append(decoder.register_forward_hook(count))
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _measure(strategy: Strategy, requests: Sequence[Request], outcome: Outcome) -> None:
    try:
        strategy.device.synchronize()
        began = time.perf_counter()
        served = list(strategy.stream(ArrivalQueue(requests)))
        took = time.perf_counter() - began
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
    within a round, since machines drift. `with_text`: the tenants whose words mean something."""
    control = outcomes[BASELINE]
    return {
        name: _row(outcome, control, references, answers, with_text)
        for name, outcome in outcomes.items()
    }


def _row(
    outcome: Outcome,
    control: Outcome,
    references: Mapping[str, str | None],
    answers: Mapping[str, str | None],
    with_text: Collection[str],
) -> dict[str, Any]:
    said = [item for one_round in outcome.said for item in one_round]
    empty = sum(
        not (item.transcript or "asr" not in with_text)
        or not (item.answer or "llm" not in with_text)
        for item in said
    )
    rates = outcome.rates()
    row: dict[str, Any] = {
        "status": outcome.status,
        "reason": outcome.reason,
        "n": len(said),
        "transcripts": sum(bool(item.transcript) for item in said),
        "answers": sum(bool(item.answer) for item in said),
    }
    if empty and row["status"] == "ok":
        row["status"] = "invalid"
        row["reason"] = f"{empty} of {len(said)} requests got an empty transcript or answer"
    latency = bootstrap_interval([item.latency_s for item in said])
    # an arm that broke in a later round has fewer rounds than the baseline
    ratio = bootstrap_interval(
        [own / other for own, other in zip(rates, control.rates(), strict=False)]
    )
    slower = bootstrap_interval(_paired(outcome, control))
    row |= {
        "median_latency_s": _known(latency.value),
        "latency_interval_s": _bounds(latency),
        "median_rps": statistics.median(rates) if rates else None,
        "values_rps": [round(rate, 4) for rate in rates],
        "throughput_over_original": _known(ratio.value),
        "throughput_over_original_interval": _bounds(ratio),
        "latency_over_original": _known(slower.value),
        "latency_over_original_interval": _bounds(slower),
        "wer": _word_errors(said, references) if "asr" in with_text else None,
        "answers_right": None,
        "answers_known": 0,
        "weights_at_rest_bytes": outcome.weights_bytes,
        "decoder_passes": outcome.passes,
    }
    pairs = [(item.answer, answers[item.request_id]) for item in said]
    known = [(own, right) for own, right in pairs if right is not None]
    if known and "llm" in with_text:
        right = sum(own.strip().lower() == wanted.strip().lower() for own, wanted in known)
        row |= {"answers_right": right, "answers_known": len(known)}
    return row


def _paired(outcome: Outcome, control: Outcome) -> list[float]:
    """Each request's latency over the baseline's of the same request in the same round."""
    ratios = []
    for own, other in zip(outcome.said, control.said, strict=False):
        took = {item.request_id: item.latency_s for item in other}
        ratios += [item.latency_s / took[item.request_id] for item in own]
    return ratios


def _word_errors(said: Sequence[Said], references: Mapping[str, str | None]) -> float | None:
    pairs = [(references[item.request_id], item.transcript) for item in said]
    known = [(reference, words) for reference, words in pairs if reference is not None]
    if not known:
        return None
    return _known(word_error_rate([pair[0] for pair in known], [pair[1] for pair in known]))


def _known(value: float) -> float | None:
    """JSON has no not-a-number."""
    return None if math.isnan(value) else value


def _bounds(interval: Interval) -> list[float | None]:
    return [_known(interval.low), _known(interval.high)]


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The arms as a Markdown table."""
    lines = [
        "| arm | status | n | latency | requests/s | of original's | WER | answers right |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in results.items():
        right = f"{row['answers_right']}/{row['answers_known']}" if row["answers_known"] else "–"
        cells = [
            name,
            row["status"] + (f": {row['reason']}" if row["reason"] else ""),
            str(row["n"]),
            _number(row["median_latency_s"], row["latency_interval_s"], ".3f", " s"),
            _number(row["median_rps"], [None], ".2f"),
            _number(
                row["throughput_over_original"], row["throughput_over_original_interval"], ".2f"
            ),
            _number(row["wer"], [None], ".1%"),
            right,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | None, bounds: Sequence[float | None], form: str, unit: str = "") -> str:
    if value is None:
        return "–"
    known = [bound for bound in bounds if bound is not None]
    spread = f" ({known[0]:{form}} to {known[1]:{form}})" if len(known) == 2 else ""
    return f"{value:{form}}{unit}{spread}"
