"""What a verdict may rest on: a run's rows, its device, and what a claim needs of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, field_validator

from hybridlab import catalog
from hybridlab.analysis.arms import ArmStats, is_value, numbers, standings, with_notebook
from hybridlab.analysis.stats import LEVEL
from hybridlab.catalog import Card
from hybridlab.catalog.device_names import simulated_card
from hybridlab.errors import ParameterError
from hybridlab.results.schema import required_columns
from hybridlab.units import MIB

Verdict = Literal["supported", "refuted", "inconclusive", "not testable here"]
#: What drivers differ in the total that they report for one and the same card.
CAPACITY_SLACK_BYTES = 256 * MIB


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """A verdict with its figures, its reason, and the case ids or formula behind it; `chance` is
    how often rows without any effect lie so far on its side, None where nothing varies."""

    verdict: Verdict
    measured: str = ""
    reason: str
    basis: str = ""
    chance: float | None = None


def no_rows(reason: str) -> ClaimResult:
    """Inconclusive, since the rows that would decide are missing."""
    return ClaimResult(verdict="inconclusive", reason=reason)


def supported_if(true: bool) -> Verdict:
    return "supported" if true else "refuted"


def decided(supported: float, refuted: float) -> tuple[Verdict, float]:
    """The side that the rows are on at 5 %, from the chance of rows so far on either side without
    an effect; and the chance of them on whichever."""
    chance = min(1.0, 2 * min(supported, refuted))
    if chance > 1 - LEVEL:
        return "inconclusive", chance
    return supported_if(supported < refuted), chance


class Needs(BaseModel):
    """Where a claim must be measured; nothing set means on any device, with any pair."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arithmetic: bool = False
    cuda: bool = False
    card: str | None = None
    full_size: bool = False
    weights: Literal["any", "real"] = "any"

    @field_validator("card")
    @classmethod
    def _known_card(cls, name: str | None) -> str | None:
        if name is not None and name not in catalog.CARDS:
            raise ValueError(str(ParameterError.unknown_name("card", name, catalog.CARDS)))
        return name


@dataclass(frozen=True, kw_only=True)
class RunData:
    """A run's rows and where they come from; `card` is the card that is here, or None."""

    tables: Mapping[str, pd.DataFrame]
    device: str
    card: str | None

    def rows(self, table: str) -> pd.DataFrame:
        """A table with a column `notebook`; an absent one is empty, columns as the design says."""
        found = self.tables.get(table)
        if found is None:
            found = pd.DataFrame(columns=[*required_columns(table)])
        return with_notebook(found)

    @cached_property
    def cases(self) -> pd.DataFrame:
        return self.rows("cases")

    @cached_property
    def trials(self) -> pd.DataFrame:
        return self.rows("trials")

    @cached_property
    def standings(self) -> list[ArmStats]:
        return standings(self.cases, self.trials)

    def of(self, experiment: str, status: str = "ok") -> pd.DataFrame:
        """Cases of an experiment that ended so."""
        cases = self.cases
        return cases[(cases["experiment"] == experiment) & (cases["status"] == status)]

    def only(self, keep: pd.Series) -> RunData:
        """The run with these cases only; other tables follow by case id when they are joined."""
        return replace(self, tables={**self.tables, "cases": self.cases[keep]})

    @property
    def is_cuda(self) -> bool:
        """Whether CUDA's allocator was at work: a simulated card has it too."""
        return self.device.startswith("cuda") or self.is_simulated

    @property
    def is_simulated(self) -> bool:
        return simulated_card(self.device) is not None

    @property
    def place(self) -> str:
        """'the CPU with pocket weights': every measured verdict speaks of this place only."""
        where = self.device
        if simulated := simulated_card(self.device):
            where = f"a simulated {simulated.title}"
        elif self.is_cuda:
            known = catalog.CARDS.get(self.card or "")
            where = f"{self.device} ({known.title})" if known else self.device
        elif self.device == "cpu":
            where = "the CPU"
        weights = self.cases["llm_weights"].dropna().unique()
        return f"{where} with {'/'.join(map(str, weights)) or 'no'} weights"

    def result(
        self,
        verdict: Verdict,
        reason: str,
        *,
        measured: str,
        case_ids: Iterable[str] = (),
        chance: float | None = None,
    ) -> ClaimResult:
        """A measured verdict: the reason names where, the basis each case once."""
        return ClaimResult(
            verdict=verdict,
            measured=measured,
            reason=f"{reason}, on {self.place}",
            basis=", ".join(dict.fromkeys(case_ids)),
            chance=chance,
        )


def filter_rows(needs: Needs, run: RunData) -> tuple[RunData, str]:
    """The run with only the rows that the claim may be judged by, and why it cannot be judged
    here."""
    if needs.arithmetic:
        return run, ""
    if needs.card and (not run.is_cuda or run.card != needs.card):
        title = catalog.card(needs.card).title
        return run, f"a figure for the {title} comes from that card; this run is on {_here(run)}"
    if needs.cuda and not run.is_cuda:
        return run, f"needs a CUDA device and its allocator; this run is on {_here(run)}"
    cases = run.cases
    for keep, lack in _filters(needs, cases):
        run = run.only(keep.reindex(run.cases.index))
        if len(cases) and run.cases.empty:
            return run, f"{lack}; this run has none"
    return run, ""


def _here(run: RunData) -> str:
    return f"{run.device} ({run.card})" if run.is_cuda and run.card else run.device


def _filters(needs: Needs, cases: pd.DataFrame) -> list[tuple[pd.Series, str]]:
    filters = []
    if needs.card:
        filters.append((_on_card(cases, catalog.card(needs.card)), "needs rows of the card itself"))
    if needs.full_size:
        pocket = ["pocket", *catalog.POCKET_SIZES]
        full = ~cases["llm_model"].isin(pocket) & ~cases["asr_model"].isin(pocket)
        filters.append((full, "needs the full-size models, not the pocket pair"))
    if needs.weights == "real":
        real = cases["llm_weights"].isin(catalog.RELEASED)
        real &= cases["asr_weights"].isna() | cases["asr_weights"].isin(catalog.RELEASED)
        filters.append((real, "needs released weights (hub or local)"))
    return filters


def _on_card(cases: pd.DataFrame, card: Card) -> pd.Series:
    """Rows whose capacity is that card's, and no memory limit's: a name alone proves nothing."""
    capacity = numbers(cases, "capacity_bytes")
    low, high = card.usable_bytes - CAPACITY_SLACK_BYTES, card.nominal_bytes
    return (capacity.isna() | capacity.between(low, high)) & ~is_value(
        cases["memory_limited"], True
    )
