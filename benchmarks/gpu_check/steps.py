"""The steps, the most valuable first, and the check that runs them within its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu_check import commands, findings
from benchmarks.gpu_check.commands import Command, Ended
from benchmarks.gpu_check.findings import Done, Finding
from benchmarks.gpu_check.machine import Machine
from hybridlab.errors import UnavailableError
from hybridlab.results.manifest import write_json

#: So few seconds are not worth a start.
LEAST_S = 20.0
SWAPS = "5"
TOKENS = "48"
REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a step's commands work: what is published, and what is not."""

    output: Path
    scratch: Path


@dataclass(frozen=True, kw_only=True)
class Step:
    name: str
    #: What it answers, in a few words.
    question: str
    most_s: float
    #: `UnavailableError` where it cannot be done here.
    commands: Callable[[Machine, Place], list[Command]]
    finding: Callable[[dict[str, Ended], Machine, Place], Finding]


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _pairs(machine: Machine, place: Place) -> list[Command]:
    if not machine.card:
        raise UnavailableError(f"{machine.title} is no card of the catalog: none to simulate")
    folder = str(place.scratch / "pairs")
    argv = _python("benchmarks.gpu_check.pairs", "--card", machine.card, "--folder", folder)
    return [Command(name="pairs", argv=argv)]


def _swaps(machine: Machine, place: Place) -> list[Command]:
    hashes = "0" if machine.simulated else SWAPS  # of large copies a simulated card keeps the ends
    common = [
        "--device",
        "cuda",
        "--asr-model",
        "large-v3",
        "--swaps",
        SWAPS,
        "--check-every",
        hashes,
    ]
    return [
        Command(name=variant, argv=_python("benchmarks.swaps", "--variant", variant, *common))
        for variant in ("single-buffer", "pinned")
    ]


def _decoding(machine: Machine, place: Place) -> list[Command]:
    common = ["--device", "cuda", "--model", "mini-3b", "--tokens", TOKENS, "--repeats", "3"]
    return [
        Command(name=kind, argv=_python("benchmarks.decoding", "--kinds", kind, *common))
        for kind in ("loop", "generate")
    ]


def _tests(machine: Machine, place: Place) -> list[Command]:
    files = [
        str(path)
        for path in sorted((REPO / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    if not files:
        raise UnavailableError("the tests are not here: run it from a checkout")
    if find_spec("pytest") is None:
        raise UnavailableError("pytest is not installed: pip install pytest")
    xml = place.output / findings.TESTS
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={xml}"]
    options += ["--continue-on-collection-errors", *files]
    return [Command(name="tests", argv=_python("pytest", *options), says_rows=False)]


def _sharing(machine: Machine, place: Place) -> list[Command]:
    folder = str(place.scratch / "sharing")
    argv = _python("benchmarks.gpu_check.sharing", "--folder", folder)
    return [Command(name="sharing", argv=argv)]


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            name="pairs",
            question="does a simulated card of this kind allocate what this one does?",
            most_s=150,
            commands=_pairs,
            finding=lambda ended, machine, place: findings.of_pairs(ended["pairs"].rows),
        ),
        Step(
            name="swaps",
            question="how near to the link's own speed do weights come in?",
            most_s=90,
            commands=_swaps,
            finding=lambda ended, machine, place: findings.of_swaps(ended, machine),
        ),
        Step(
            name="decoding",
            question="how near to the floor of memory's bandwidth does Voxtral decode?",
            most_s=90,
            commands=_decoding,
            finding=lambda ended, machine, place: findings.of_decoding(ended, machine),
        ),
        Step(
            name="tests",
            question="do the tests that need a GPU pass?",
            most_s=200,
            commands=_tests,
            finding=lambda ended, machine, place: findings.of_tests(place.output),
        ),
        Step(
            name="sharing",
            question="does every way of sharing work at full size inside a T4's memory?",
            most_s=300,
            commands=_sharing,
            finding=lambda ended, machine, place: findings.of_sharing(
                ended["sharing"].rows, machine
            ),
        ),
    )
}


@dataclass
class Check:
    """Runs steps until `ends_s` of the monotonic clock and keeps `output` up to date."""

    machine: Machine
    output: Path
    scratch: Path
    ends_s: float
    #: How much more time than on a GPU each step may take: where more is given in all.
    slowness: float = 1.0
    done: dict[str, Done] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return any(done.status == "failed" for done in self.done.values())

    def run(self, step: Step) -> Done:
        began = time.monotonic()
        limit_s = min(step.most_s * self.slowness, self.ends_s - began)
        if limit_s < LEAST_S:
            done = Done(step=step.name, status="left out", reason="no time was left for it")
        else:
            done = self._done(step, began + limit_s)
            done = Done(**{**asdict(done), "seconds": time.monotonic() - began})
        self.done[step.name] = done
        self.save()
        return done

    def _done(self, step: Step, until_s: float) -> Done:
        place = Place(output=self.output, scratch=self.scratch)
        try:
            made = step.commands(self.machine, place)
        except UnavailableError as error:
            return Done(step=step.name, status="skipped", reason=str(error))
        ended = {command.name: self._ended(command, until_s) for command in made}
        return findings.done(step.name, ended, step.finding(ended, self.machine, place))

    def _ended(self, command: Command, until_s: float) -> Ended:
        left_s = until_s - time.monotonic()
        if left_s < LEAST_S:
            return Ended(status="cut", seconds=0, rows=[], reason="no time was left for it")
        log = self.output / "log.txt"
        return commands.run(command, limit_s=left_s, log=log, scratch=self.scratch)

    def save(self) -> None:
        """What is known so far."""
        rows = [asdict(done) for done in self.done.values()]
        found: dict[str, Any] = {**self.machine.facts(), "steps": rows}
        write_json(self.output / "summary.json", found)
        text = findings.markdown(self.machine, list(self.done.values()))
        (self.output / "summary.md").write_text(text, encoding="utf-8")
