"""04-06: strategies against each other, interleaved in rounds, behind the parity gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridlab.config.params import SequentialParams, StrategyParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.lab import Lab
from hybridlab.experiments.placement import IN_SERVERS, transcriber_spec
from hybridlab.models.base import TenantSpec


@dataclass(frozen=True)
class Arm:
    """A strategy and a variant that take part in a race."""

    strategy: str
    variant: str
    options: Mapping[str, Any] = field(default_factory=dict)


CONTROL = Arm("sequential", "plain")


def sequential_arms(params: SequentialParams) -> list[Arm]:
    """The variants of `sequential` with the options that each takes."""
    options: dict[str, dict[str, Any]] = {
        "asyncio": {"in_flight": params.in_flight},
        "batched": {"batch": params.batch},
    }
    return [Arm("sequential", name, options.get(name, {})) for name in params.sequential_variants]


def run(
    lab: Lab, arms: list[Arm], *, rounds: int, container_rounds: int | None = None
) -> list[dict[str, Any]]:
    """Measure each tenant alone, then `rounds` times all arms in turn (A B C A B C ...), so that a
    machine that drifts slows all arms alike. An arm with a Whisper of another backend has the texts
    of that one alone to equal. Arms whose tenants are servers, which take seconds to start, are in
    the first `container_rounds` alone."""
    own = lab.transcriber.backend
    backends = dict.fromkeys([own, *(_whisper(lab, arm).backend for arm in arms)])
    most = rounds if container_rounds is None else container_rounds
    turns = [
        (number, arm)
        for number in range(rounds)
        for arm in arms
        if number < most or arm.variant not in IN_SERVERS
    ]
    lab.runner.total = len(backends) + len(turns)
    rows, texts = [], {}
    for backend in backends:
        row = lab.runner.run(_alone(lab, arms, backend))
        rows.append(row)
        if row["status"] in ("ok", "invalid"):  # invalid are its times, not its texts
            texts[backend] = _texts_path(lab, backend)
    if own not in texts:
        return rows  # without reference texts no arm could pass the parity gate
    rows += [
        lab.runner.run(_race_case(lab, arm, number, texts.get(_whisper(lab, arm).backend, "")))
        for number, arm in turns
    ]
    return rows


def _whisper(lab: Lab, arm: Arm) -> TenantSpec:
    """The Whisper of this arm: some variants have another one than the pair's."""
    return transcriber_spec(arm.variant, lab.transcriber, lab.device)


def _texts_path(lab: Lab, backend: str) -> str:
    return str(lab.part.folder / f"texts-alone-{backend}.json")


def _alone(lab: Lab, arms: list[Arm], backend: str) -> Case:
    pair_s = backend == lab.transcriber.backend
    others = (spec for spec in (_whisper(lab, arm) for arm in arms) if spec.backend == backend)
    return lab.case(
        "alone" if pair_s else f"alone_{backend}",
        work="alone",
        strategy="alone",
        variant="both",
        transcriber=lab.transcriber if pair_s else next(others),
        warmup=0,
        options={"texts_path": _texts_path(lab, backend)},
    )


def tell_apart(lab: Lab, arm: Arm) -> dict[str, Any]:
    """One request whose bytes are told apart by tenant while both are at work."""
    fields: dict[str, Any] = {"requests": lab.requests(1), "warmup": 1, "phases": True}
    return lab.runner.run(arm_case(lab, "at_once", arm, **fields))


def _race_case(lab: Lab, arm: Arm, number: int, texts_path: str) -> Case:
    options = {"expected_texts": texts_path, "housekeeping": _housekeeping(lab, arm)}
    return arm_case(lab, "race", arm, round=number, options=options, rungs=_rungs(lab, arm))


def _rungs(lab: Lab, arm: Arm) -> tuple[TenantSpec, ...]:
    """The Whispers of this arm from large to small; none for the control, for an arm without a
    Whisper, and where the parameters name no smaller one."""
    if arm == CONTROL or arm.strategy == "solo" or not lab.fallbacks:
        return ()
    smaller = (transcriber_spec(arm.variant, spec, lab.device) for spec in lab.fallbacks)
    return (_whisper(lab, arm), *smaller)


def _housekeeping(lab: Lab, arm: Arm) -> dict[str, Any]:
    """What the parameters ask for; the control, which all arms are held against, has none."""
    params = lab.params
    if arm == CONTROL or not isinstance(params, StrategyParams):
        return {}
    return {"clean_every": params.clean_every, "restart_above": params.restart_above}


def arm_case(
    lab: Lab, experiment: str, arm: Arm, *, options: Mapping[str, Any] | None = None, **fields: Any
) -> Case:
    """A case in which this arm serves; `fields` replace fields of `Case`."""
    return lab.case(
        experiment,
        strategy=arm.strategy,
        variant=arm.variant,
        transcriber=None if arm.strategy == "solo" else _whisper(lab, arm),
        options={**(options or {}), "strategy": dict(arm.options)},
        **fields,
    )
