"""Every Whisper beside a Voxtral on one card, and the pick among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hybridlab import catalog
from hybridlab.analysis.pick import (
    DEFAULT_MARGIN_GB,
    best_by_size,
    checked_margin_bytes,
    checked_request,
    margin_words,
    pick_of,
    recognizer_name,
    remedy,
    serve_options,
    why_not,
)
from hybridlab.catalog import Card
from hybridlab.errors import ParameterError
from hybridlab.planner import PairPlan, Request, plan_table
from hybridlab.units import format_bytes, format_percent, gib

if TYPE_CHECKING:
    import pandas as pd

#: What Voxtral's weights may be kept in; auto: what the card computes in.
LLM_DTYPES = ("auto", *catalog.LLM_DTYPES)
#: Of the table of figures; bytes in GiB.
SIZE_COLUMNS = ("asr", "WER %", "speed")
COLUMNS = (*SIZE_COLUMNS, "backend", "dtype", "peak", "card", "margin", "verdict")
#: Under the table.
SOURCES = f"WER: {catalog.WER_SOURCE}. Speed: {catalog.SPEED_SOURCE}."


@dataclass(frozen=True, kw_only=True, repr=False)
class PlanReport:
    """What every pair takes on one card: predicted, never measured. Printed, it is a table of the
    best combination for each size."""

    card: Card
    request: Request
    margin_bytes: int
    pairs: tuple[PairPlan, ...]

    @cached_property
    def pick(self) -> PairPlan | None:
        """The Whisper for this card and request; None where none leaves the margin."""
        return pick_of(self.pairs, self.margin_bytes)

    @cached_property
    def by_size(self) -> list[PairPlan]:
        """The best combination for each size, whether it fits or not."""
        return best_by_size(self.pairs, self.margin_bytes)

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each pair, all sizes in bytes; without the ledgers (`pairs` have them)."""
        import pandas as pd

        return pd.DataFrame([pair.as_dict() for pair in self.pairs]).drop(columns="ledger")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: card, request, pick (None without one) and a row for each pair."""
        first = self.pairs[0]
        asked = {"llm_model": first.llm_model, "llm_dtype": first.llm_dtype}
        asked |= {"attention": first.attention, **asdict(self.request)}
        serve = {"serve": f"hybridlab {' '.join(serve_options(self.pick))}"} if self.pick else {}
        return {
            "card": self.card.name,
            "request": asked | {"margin_bytes": self.margin_bytes},
            "pick": self._row(self.pick) | serve if self.pick else None,
            "rows": [self._row(pair) for pair in self.pairs],
        }

    def _row(self, pair: PairPlan) -> dict[str, Any]:
        model = catalog.whisper(pair.asr_model)
        published = {n: getattr(model, n) for n in ("published_wer", "relative_speed")}
        return {**pair.as_dict(), **published, "why_not": self.why_not(pair)}

    def why_not(self, pair: PairPlan) -> str:
        """Why this pair is not the pick; 'pick' where it is."""
        return why_not(pair, self.pick, self.margin_bytes)

    def heading(self) -> str:
        first = self.pairs[0]
        return (
            f"{first.llm_model} in {first.llm_dtype} and one Whisper on {self.card.title}: "
            f"predicted, {format_bytes(self.card.usable_bytes)} usable"
        )

    def rows(self, pairs: Sequence[PairPlan]) -> list[tuple[str, ...]]:
        """The cells of `COLUMNS` for each pair."""
        return [
            (
                *(pair.asr_model, *published(pair.asr_model), pair.asr_backend, pair.asr_dtype),
                *(f"{gib(pair.total_bytes):.2f}", f"{pair.utilization * 100:.0f}"),
                *(f"{gib(pair.margin_bytes):.2f}", self.why_not(pair)),
            )
            for pair in pairs
        ]

    def conclusion(self) -> str:
        """Which Whisper, and why."""
        best, margin = self.pick, margin_words(self.margin_bytes)
        if best is None and len(self.by_size) == 1:
            own = self.by_size[0].asr_model
            return f"{own} does not fit on {self.card.title} with {margin}."
        if best is None:
            return f"No Whisper fits on {self.card.title} with {margin}."
        wer = catalog.whisper(best.asr_model).published_wer
        if len(self.by_size) == 1:  # there was no size to choose
            why = "the most precise"
        elif wer is None:
            why = "the largest"
        else:
            why = f"the lowest published WER ({format_percent(wer, 1)})"
        return (
            f"On {self.card.title}: {recognizer_name(best)}, {why} of what fits "
            f"with {margin}; {format_bytes(best.margin_bytes)} to spare."
        )

    def remedies(self) -> list[str]:
        """What would help the sizes that do not leave the margin, where something would."""
        sizes: dict[str, list[str]] = {}
        for pair in self.by_size:
            help_for_it = remedy(pair, self.request, self.margin_bytes)
            if help_for_it:
                sizes.setdefault(help_for_it, []).append(pair.asr_model)
        return [f"{', '.join(own)}: {help_for_it}." for help_for_it, own in sizes.items()]

    def __repr__(self) -> str:
        return f"{self.heading()}; in GiB:\n{self._shown().to_string(index=False)}"

    def _repr_html_(self) -> str:
        return f"<p>{self.heading()}; in GiB:</p>{self._shown().to_html(index=False)}"

    def _shown(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.rows(self.by_size), columns=list(COLUMNS))


def published(size: str) -> tuple[str, str]:
    """Published word error rate in % and relative speed: '7.4' and '8x', '-' for none."""
    model = catalog.whisper(size)
    wer = "-" if model.published_wer is None else f"{model.published_wer * 100:.1f}"
    return wer, "-" if model.relative_speed is None else f"{model.relative_speed:g}x"


def plan(
    card: str = "t4",
    *,
    llm_model: str = "mini-3b",
    llm_dtype: str = "auto",
    asr_models: Sequence[str] = catalog.WHISPER_SIZES,
    audio_s: float = catalog.WINDOW_S,
    new_tokens: int = 200,
    beams: int = 1,
    batch: int = 1,
    attention: str = "auto",
    margin_gb: float = DEFAULT_MARGIN_GB,
) -> PlanReport:
    """Predict what every size of `asr_models`, backend and dtype takes beside a Voxtral on a card,
    and pick one that leaves `margin_gb` (10⁹ bytes) free.

    `audio_s` is the length of a request's audio in seconds, `new_tokens` the tokens of its answer,
    `batch` the requests at once. `ParameterError` for a name that the catalog does not know, for a
    request without audio, tokens, beams or batch, for no size, and for a margin below zero.
    """
    if not asr_models:
        raise ParameterError("asr_models is empty; name a size of Whisper")
    if llm_dtype not in LLM_DTYPES:
        raise ParameterError.unknown_name("llm_dtype", llm_dtype, LLM_DTYPES)
    margin_bytes = checked_margin_bytes(margin_gb)
    request = checked_request(audio_s=audio_s, new_tokens=new_tokens, beams=beams, batch=batch)
    pairs = plan_table(
        catalog.card(card),
        voxtral=catalog.voxtral(llm_model),
        sizes=tuple(dict.fromkeys(asr_models)),
        llm_dtype=None if llm_dtype == "auto" else llm_dtype,
        request=request,
        attention=catalog.attention(attention),
    )
    return PlanReport(
        card=catalog.card(card),
        request=request,
        margin_bytes=margin_bytes,
        pairs=tuple(pairs),
    )
