"""Which Whisper fits beside Voxtral on one card: what was measured or simulated there, and for what
nobody has run what the planner predicts. Behind the first figure and the first sentence of a
report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from hybridlab import catalog
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.case_status import WITH_BYTES
from hybridlab.analysis.pick import (
    DEFAULT_MARGIN_BYTES,
    best_by_size,
    plan_leaves,
    rank,
)
from hybridlab.catalog import Card
from hybridlab.catalog.device_names import simulated_card
from hybridlab.planner import Estimate, PairPlan, Request, plan_pair, plan_table
from hybridlab.planner.limits import longest_audio_s
from hybridlab.planner.memory_plan import MOMENTS
from hybridlab.results.schema import was_stopped

Evidence = Literal["measured", "simulated", "predicted"]
#: The card of which predictions speak where no case speaks of a card.
TARGET = "t4"
#: What openai-whisper does when nobody asks for anything else.
DEFAULT_BACKEND = "openai-whisper"
#: Of one card, whose driver does not give exactly the same twice.
_SAME_CAPACITY = 0.01
#: Size, backend, dtype.
Combination = tuple[str, str, str]
#: Of a `PairFit` what a case says.
Reading = dict[str, Any]
#: The same of a case without a reading on a card without a prediction.
NOTHING: Reading = {"evidence": "predicted", "moments": {}, "others_bytes": 0.0}
NOTHING |= {"margin_bytes": math.nan, "fits": False, "predicted": None}


@dataclass(frozen=True, kw_only=True)
class AudioSearch:
    """What the search for the longest audio of notebook 03 found, up to the very last byte."""

    longest_s: float
    #: A longer one failed; else none was tried.
    failed_beyond: bool


@dataclass(frozen=True, kw_only=True)
class PairFit:
    """One Whisper, kept in one way, beside Voxtral."""

    asr_model: str
    asr_backend: str
    asr_dtype: str
    evidence: Evidence
    #: Bytes of the card in use at each moment, those of others among them.
    moments: Mapping[str, float]
    #: The driver's context, and what other programs hold.
    others_bytes: float
    margin_bytes: float
    #: Whether it leaves the margin of every pick.
    fits: bool
    #: 'out of memory', or what became of a case without a reading, which does not fit either:
    #: 'skipped', 'crashed'. '' of one that ended well, that nobody asked for or the reader stopped.
    lost: str
    #: The planner's highest moment; None for a card that it does not know.
    predicted: Estimate | None
    #: Leaving the margin; None where nothing is predicted.
    predicted_audio_s: float | None
    #: None where nobody searched with this pair.
    search: AudioSearch | None
    plan: PairPlan | None

    @property
    def name(self) -> str:
        """'large-v3 (transformers, float16)'."""
        return f"{self.asr_model} ({self.asr_backend}, {self.asr_dtype})"

    @property
    def highest_moment(self) -> str:
        """The moment that takes most: what breaks first."""
        return max(("load_peak", "request_peak"), key=lambda name: self.moments.get(name, 0.0))

    @property
    def longest_audio_s(self) -> float | None:
        """Found by search where the run has one, else predicted."""
        return self.search.longest_s if self.search else self.predicted_audio_s

    @property
    def audio_is_limited(self) -> bool:
        """Whether a request with a longer audio breaks it before Voxtral's own limit does."""
        if self.search:
            return self.search.failed_beyond
        longest_s = self.predicted_audio_s
        return longest_s is not None and longest_s < catalog.VOXTRAL_MAX_ANSWER_S


@dataclass(frozen=True, kw_only=True)
class WhichFits:
    """The answer for one Voxtral on one card; `card` is None for a GPU that the catalog does not
    know."""

    card: Card | None
    device: str
    llm_model: str
    llm_dtype: str
    capacity_bytes: float
    rows: tuple[PairFit, ...]
    #: Why cases gave no reading, by combination.
    reasons: Mapping[str, str]
    #: For the longest audio, by combination.
    searches: Mapping[Combination, AudioSearch]
    #: Those that were looked at; none where all is predicted.
    cases: pd.DataFrame = field(compare=False, repr=False)

    @property
    def pick(self) -> PairFit | None:
        """The best by the rule of every pick among what leaves the margin; None without any."""
        fitting = [row for row in self.rows if row.fits]
        names = ("asr_model", "asr_backend", "asr_dtype")
        return min(
            fitting, key=lambda row: rank(*(getattr(row, name) for name in names)), default=None
        )

    @property
    def evidence(self) -> Evidence:
        """Of the pick; without one the best that any row has."""
        kinds = [row.evidence for row in ([self.pick] if self.pick else self.rows)]
        return next((kind for kind in ("measured", "simulated") if kind in kinds), "predicted")

    @property
    def memory_limited(self) -> bool:
        """Whether a limit made the device behave like a smaller one."""
        limited = self.cases.get("memory_limited")
        return limited is not None and bool(limited.eq(True).any())

    @property
    def n_run(self) -> int:
        """How many pairs ran, here or on the simulated card."""
        return sum(row.evidence != "predicted" for row in self.rows)


def which_fits(cases: pd.DataFrame, card: Card | None = None) -> WhichFits:
    """Every size beside Voxtral: its best combination, openai-whisper's default, and what ran.

    `cases` count where a released Voxtral ran in them, on the device that they name; `card` says
    which card that is, where it is a GPU. Without such cases all is predicted, for `card` or a T4.
    """
    ran = _of_a_released_voxtral(cases)
    if ran.empty:
        card = card or catalog.card(TARGET)
        llm_model, llm_dtype, capacity, device = "mini-3b", None, None, ""
    else:
        device = str(ran["device"].iloc[0])
        card = simulated_card(device) or (catalog.HOST if device == "cpu" else card)
        llm_model, llm_dtype = (str(ran[f"llm_{name}"].iloc[0]) for name in ("model", "dtype"))
        capacities = numbers(ran, "capacity_bytes").dropna()
        capacity = int(capacities.max()) if len(capacities) else None
    if card is None and capacity is None:
        card = catalog.card(TARGET)
    readings = {_combination(row): _reading(row) for _, row in ran.iterrows() if _has_reading(row)}
    unread = {_combination(row): row for _, row in ran.iterrows() if not _has_reading(row)}
    lost = {one: "" if was_stopped(row) else str(row["status"]) for one, row in unread.items()}
    plan = _planner(card, llm_model, llm_dtype, capacity, readings.values()) if card else None
    wanted = _combinations(plan, [*readings, *unread])
    searches = {} if ran.empty else _searches(cases, ran.iloc[0], capacity)
    rows = tuple(
        _row(one, plan, readings.get(one), lost.get(one, ""), searches.get(one)) for one in wanted
    )
    return WhichFits(
        card=card,
        device=device,
        llm_model=llm_model,
        llm_dtype=llm_dtype or next(row.plan.llm_dtype for row in rows if row.plan),
        capacity_bytes=capacity or float(card.usable_bytes if card else math.nan),
        rows=rows,
        cases=ran,
        searches=searches,
        reasons={" ".join(one): str(row["reason"] or "") for one, row in unread.items()},
    )


def _of_a_released_voxtral(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases of each size beside a Voxtral of the catalog that is no pocket model: those of the
    first device."""
    if cases.empty or "experiment" not in cases:
        return cases.iloc[:0]
    own = cases[cases["experiment"].eq("co_residency") & cases["asr_model"].notna()]
    released = [name for name, model in catalog.VOXTRALS.items() if not model.shipped]
    own = own[own["llm_model"].isin(released)]
    own = own[own["asr_model"].isin(catalog.WHISPER_SIZES)]
    return own[own["device"].eq(own["device"].iloc[0])] if len(own) else own


def _searches(
    cases: pd.DataFrame, like: Any, capacity_bytes: int | None
) -> dict[Combination, AudioSearch]:
    """Those with the same Voxtral on the same device; not inside a memory limit of their own."""
    if capacity_bytes is None or "limit_found" not in cases:
        return {}
    own = cases[cases["experiment"].eq("memory_limits") & cases["status"].isin(WITH_BYTES)]
    for name in ("llm_model", "llm_dtype", "device"):
        own = own[own[name].eq(like[name])]
    own = own[own["limit_kind"].eq("audio_s") & numbers(own, "limit_found").gt(0)]
    own = own[(numbers(own, "capacity_bytes") / capacity_bytes - 1).abs() < _SAME_CAPACITY]
    return {
        _combination(row): AudioSearch(
            longest_s=float(row["limit_found"]), failed_beyond=bool(row["limit_hit"])
        )
        for _, row in own.iterrows()
    }


def _combination(row: Any) -> Combination:
    return str(row["asr_model"]), str(row["asr_backend"]), str(row["asr_dtype"])


def _has_reading(row: Any) -> bool:
    """Of an invalid case only the times are lost."""
    known = pd.notna(row["request_peak_bytes"]) or pd.notna(row["load_peak_bytes"])
    return row["status"] in ("ok", "invalid", "oom") and bool(known)


@dataclass(frozen=True)
class _Planner:
    """Plans of one Voxtral on one card; of the device's own bytes where it was asked."""

    card: Card
    options: Mapping[str, Any]
    #: What other programs hold that the plan itself does not count.
    others_bytes: float

    def one(self, combination: Combination, audio_s: float = catalog.WINDOW_S) -> PairPlan:
        size, backend, dtype = combination
        return plan_pair(
            self.card,
            catalog.whisper(size),
            backend=backend,
            dtype=dtype,
            request=Request(audio_s=audio_s),
            **self.options,
        )

    def best(self) -> list[Combination]:
        plans = plan_table(self.card, request=Request(), **self.options)
        return [(p.asr_model, p.asr_backend, p.asr_dtype) for p in best_by_size(plans)]

    def longest_audio_s(self, combination: Combination) -> float:
        return longest_audio_s(lambda s: plan_leaves(self.one(combination, s)))


def _planner(
    card: Card,
    llm_model: str,
    llm_dtype: str | None,
    capacity_bytes: int | None,
    readings: Iterable[Reading],
) -> _Planner:
    """On a CPU other programs are part of every reading, and a plan knows nothing of them."""
    options: dict[str, Any] = {"voxtral": catalog.voxtral(llm_model), "llm_dtype": llm_dtype}
    others = max((one["others_bytes"] for one in readings), default=0.0)
    others = 0.0 if card.is_gpu else others
    if capacity_bytes is not None:
        options["capacity_bytes"] = int(capacity_bytes - others)
    return _Planner(card, options, others)


def _combinations(plan: _Planner | None, asked: list[Combination]) -> list[Combination]:
    """By size: the best, the default, and others that were asked for."""
    default = catalog.backend(DEFAULT_BACKEND).default_dtype
    wanted = asked
    if plan is not None:
        best = plan.best()
        wanted = [*best, *((size, DEFAULT_BACKEND, default) for size, *_ in best), *wanted]
    known = list(catalog.WHISPER_SIZES)
    return sorted(dict.fromkeys(wanted), key=lambda one: known.index(one[0]))


def _row(
    combination: Combination,
    plan: _Planner | None,
    reading: Reading | None,
    lost: str,
    search: AudioSearch | None,
) -> PairFit:
    size, backend, dtype = combination
    planned = plan.one(combination) if plan else None
    shared: dict[str, Any] = {
        **{"asr_model": size, "asr_backend": backend, "asr_dtype": dtype, "plan": planned},
        "predicted_audio_s": plan.longest_audio_s(combination) if plan else None,
        "search": search,
    }
    if reading is not None:
        return PairFit(**shared, **reading)
    if plan is None or planned is None:
        return PairFit(**shared, **NOTHING, lost=lost or "stopped")
    others = plan.others_bytes
    return PairFit(
        **shared,
        evidence="predicted",
        moments={name: others + planned.moment(name).expected for name in MOMENTS},
        others_bytes=others,
        margin_bytes=float(planned.margin_bytes),
        fits=plan_leaves(planned) and not lost,
        lost=lost,
        predicted=planned.total + Estimate.exact(others),
    )


def _reading(row: Any) -> Reading:
    """What a case says. Its margin counts what others held; that stands below each moment."""
    moments = {name: float(row[f"{name}_bytes"]) for name in MOMENTS}
    margin, peak = float(row["margin_bytes"]), max(moments["load_peak"], moments["request_peak"])
    others = float(row["capacity_bytes"]) - peak - margin
    others = others if math.isfinite(others) else 0.0
    lost = row["status"] == "oom"
    predicted = row.get("predicted_bytes")
    return {
        "evidence": "simulated" if row.get("evidence") == "simulated" else "measured",
        "moments": {name: others + n for name, n in moments.items() if math.isfinite(n)},
        "others_bytes": others,
        "margin_bytes": math.nan if lost else margin,
        "fits": not lost and margin >= DEFAULT_MARGIN_BYTES,
        "lost": "out of memory" if lost else "",
        "predicted": None if pd.isna(predicted) else Estimate.exact(float(predicted) + others),
    }
