"""04-06: strategies against each other, interleaved in rounds, behind the parity gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridlab.experiments.case import Case
from hybridlab.experiments.lab import Lab
from hybridlab.params import SequentialParams


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


def run(lab: Lab, arms: list[Arm], *, rounds: int) -> list[dict[str, Any]]:
    """Measure each tenant alone, then `rounds` times all arms in turn (A B C A B C ...), so that a
    machine that drifts slows all arms alike."""
    lab.runner.total = 1 + rounds * len(arms)
    texts_path = str(lab.part.folder / "texts-alone.json")
    alone = lab.case(
        "alone",
        work="alone",
        strategy="alone",
        variant="both",
        warmup=0,
        options={"texts_path": texts_path},
    )
    rows = [lab.runner.run(alone)]
    if rows[0]["status"] not in ("ok", "invalid"):  # invalid are its times, not its texts
        return rows  # without reference texts no arm could pass the parity gate
    rows += [
        lab.runner.run(
            arm_case(lab, "race", arm, round=number, options={"expected_texts": texts_path})
        )
        for number in range(rounds)
        for arm in arms
    ]
    return rows


def tell_apart(lab: Lab, arm: Arm) -> dict[str, Any]:
    """One request whose bytes are told apart by tenant while both are at work."""
    fields: dict[str, Any] = {"requests": lab.requests(1), "warmup": 1, "phases": True}
    return lab.runner.run(arm_case(lab, "at_once", arm, **fields))


def arm_case(
    lab: Lab, experiment: str, arm: Arm, *, options: Mapping[str, Any] | None = None, **fields: Any
) -> Case:
    """A case in which this arm serves; `fields` replace fields of `Case`."""
    if arm.strategy == "solo":
        fields["transcriber"] = None
    return lab.case(
        experiment,
        strategy=arm.strategy,
        variant=arm.variant,
        options={**(options or {}), "strategy": dict(arm.options)},
        **fields,
    )
