"""04-06: strategies against each other, interleaved in rounds, behind the parity gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridlab import catalog
from hybridlab.analysis.case_status import WITH_BYTES
from hybridlab.config.params import StrategyParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.placement import asr_spec
from hybridlab.experiments.session import Session
from hybridlab.models.base import ModelSpec


@dataclass(frozen=True)
class Arm:
    """A strategy and a variant that take part in a race."""

    strategy: str
    variant: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> catalog.Variant:
        return catalog.variant(self.strategy, self.variant)


CONTROL = Arm("sequential", "plain")


def arms_of(params: StrategyParams, strategy: str) -> list[Arm]:
    """The variants of a strategy that the parameters name, with the options that each takes."""
    facts = catalog.strategy(strategy)
    return [
        Arm(
            strategy,
            name,
            {n: getattr(params, n) for n in (*facts.options, *facts.variants[name].options)},
        )
        for name in getattr(params, f"{strategy}_variants")
    ]


def run(
    session: Session, arms: list[Arm], *, rounds: int, container_rounds: int | None = None
) -> list[dict[str, Any]]:
    """Measure each model alone, then `rounds` times all arms in turn, each round beginning with
    another (A B C, B C A, ...), so that no arm has a place of its own and a machine that drifts
    slows all arms alike. An arm with a Whisper of another backend has the texts
    of that one alone to equal. Arms whose models are servers, which take seconds to start, are in
    the first `container_rounds` alone."""
    own = session.asr.backend
    backends = dict.fromkeys([own, *(_recognizer(session, arm).backend for arm in arms)])
    most = rounds if container_rounds is None else container_rounds
    turns = [
        (number, arm)
        for number in range(rounds)
        for arm in rotated(arms, number)
        if number < most or not arm.facts.in_servers
    ]
    session.runner.total = len(backends) + len(turns)
    rows, texts = [], {}
    for backend in backends:
        row = session.runner.run(_alone(session, arms, backend))
        rows.append(row)
        if row["status"] in ("ok", "invalid"):  # invalid are its times, not its texts
            texts[backend] = _texts_path(session, backend)
    if own not in texts:
        return rows  # without reference texts no arm could pass the parity gate
    rows += [
        session.runner.run(
            _race_case(session, arm, number, texts.get(_recognizer(session, arm).backend, ""))
        )
        for number, arm in turns
    ]
    return rows


def rotated(arms: list[Arm], number: int) -> list[Arm]:
    """The arms in the order of a round: over as many rounds as arms each has every place once."""
    start = number % max(1, len(arms))
    return arms[start:] + arms[:start]


def _recognizer(session: Session, arm: Arm) -> ModelSpec:
    """The Whisper of this arm: some variants have another one than the pair's."""
    return asr_spec(arm.facts, session.asr, session.device)


def _texts_path(session: Session, backend: str) -> str:
    return str(session.part.folder / f"texts-alone-{backend}.json")


def _alone(session: Session, arms: list[Arm], backend: str) -> Case:
    specs = (session.asr, *(_recognizer(session, arm) for arm in arms))
    asr = next(spec for spec in specs if spec.backend == backend)
    return session.case(
        "reference" if asr is session.asr else f"alone_{backend}",
        work="reference",
        strategy="reference",
        variant="both",
        asr=asr,
        warmup=0,
        options={"texts_path": _texts_path(session, backend)},
    )


def attribute_peaks(session: Session, arms: list[Arm]) -> None:
    """`attribute_peak` of each arm but those in servers, which are not told apart from outside."""
    for arm in arms:
        if not arm.facts.in_servers:
            attribute_peak(session, arm)


def last_served(rows: list[dict[str, Any]]) -> str:
    """The id of the last case that served, of none the last one's."""
    served = [row["case_id"] for row in rows if row["status"] in WITH_BYTES]
    return str((served or [rows[-1]["case_id"]])[-1])


def attribute_peak(session: Session, arm: Arm) -> dict[str, Any]:
    """One request whose bytes are attributed to either model while both are at work."""
    fields: dict[str, Any] = {"requests": session.requests(1), "warmup": 1, "phases": True}
    return session.runner.run(arm_case(session, "concurrent", arm, **fields))


def _race_case(session: Session, arm: Arm, number: int, texts_path: str) -> Case:
    options = {"expected_texts": texts_path}
    return arm_case(session, "strategy_comparison", arm, round=number, options=options)


def arm_case(
    session: Session,
    experiment: str,
    arm: Arm,
    *,
    options: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Case:
    """A case in which this arm serves; `fields` replace fields of `Case`."""
    return session.case(
        experiment,
        strategy=arm.strategy,
        variant=arm.variant,
        asr=_recognizer(session, arm),
        options={**(options or {}), "strategy": dict(arm.options)},
        **fields,
    )
