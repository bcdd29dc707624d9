"""Every Whisper beside a Voxtral on one card, and the largest that fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hybridlab import catalog
from hybridlab.catalog import Attention, Card
from hybridlab.errors import ParameterError
from hybridlab.planner.activations import Request
from hybridlab.planner.memory_plan import PairPlan, plan_table
from hybridlab.units import GB, format_bytes, gib

if TYPE_CHECKING:
    import pandas as pd

#: What Voxtral's weights may be kept in; auto: what the card computes in.
LLM_DTYPES = ("auto", *catalog.LLM_DTYPES)
#: Of the table of figures; bytes in GiB.
COLUMNS = ("asr", "backend", "dtype", "load", "idle", "request", "card", "margin", "verdict")


@dataclass(frozen=True, kw_only=True, repr=False)
class PlanReport:
    """What every pair takes on one card: predicted, never measured. Printed, it is a table."""

    card: Card
    pairs: tuple[PairPlan, ...]

    def largest(self, *, margin_gb: float = 0.0) -> PairPlan | None:
        """The pair with the largest Whisper that leaves so many GB (10⁹ bytes) free, the cheaper of
        equal ones, or None."""
        return max(
            (pair for pair in self.pairs if pair.margin_bytes >= int(margin_gb * GB)),
            key=lambda p: (catalog.whisper(p.asr_model).parameters, -p.total_bytes),
            default=None,
        )

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each pair, all sizes in bytes; without the ledgers (`pairs` have them)."""
        import pandas as pd

        return pd.DataFrame(self.as_dicts()).drop(columns="ledger")

    def as_dicts(self) -> list[dict[str, Any]]:
        """Flat figures of each pair, for JSON."""
        return [pair.as_dict() for pair in self.pairs]

    def heading(self) -> str:
        first = self.pairs[0]
        return (
            f"{first.llm_model} in {first.llm_dtype} and one Whisper on {self.card.title}: "
            f"predicted, {format_bytes(self.card.usable_bytes)} usable"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of `COLUMNS` for each pair."""
        return [_cells(pair) for pair in self.pairs]

    def conclusion(self, *, margin_gb: float = 0.0) -> str:
        best = self.largest(margin_gb=margin_gb)
        if best is None:
            return f"No Whisper leaves {margin_gb:g} GB free."
        return (
            f"Largest Whisper that leaves {margin_gb:g} GB: {best.asr_model} ({best.asr_backend}, "
            f"{best.asr_dtype}), {format_bytes(best.margin_bytes)} to spare."
        )

    def __repr__(self) -> str:
        return f"{self.heading()}; in GiB:\n{self._shown().to_string(index=False)}"

    def _repr_html_(self) -> str:
        return f"<p>{self.heading()}; in GiB:</p>{self._shown().to_html(index=False)}"

    def _shown(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=list(COLUMNS))


def _cells(pair: PairPlan) -> tuple[str, ...]:
    sizes = (pair.load_peak_bytes, pair.idle_bytes, pair.request_peak_bytes)
    return (
        *(pair.asr_model, pair.asr_backend, pair.asr_dtype),
        *(f"{gib(size):.2f}" for size in sizes),
        f"{pair.utilization:.0%}",
        f"{gib(pair.margin_bytes):.2f}",
        pair.fit,
    )


def plan(
    card: str = "t4",
    *,
    llm_model: str = "mini-3b",
    llm_dtype: str = "auto",
    audio_s: float = catalog.WINDOW_S,
    new_tokens: int = 200,
    beams: int = 1,
    batch: int = 1,
    attention: str = "auto",
) -> PlanReport:
    """Predict what every Whisper size, backend and dtype takes beside a Voxtral on a card.

    `audio_s` is the length of a request's audio in seconds, `new_tokens` the tokens of its answer,
    `batch` the requests at once. `ParameterError` for a name that the catalog does not know, and
    for a request without audio, tokens, beams or batch.
    """
    if min(audio_s, new_tokens, beams, batch) <= 0:
        raise ParameterError("audio_s, new_tokens, beams and batch must be above zero")
    for name, value, known in (
        ("llm_dtype", llm_dtype, LLM_DTYPES),
        ("attention", attention, catalog.ATTENTIONS),
    ):
        if value not in known:
            raise ParameterError.unknown_name(name, value, known)
    pairs = plan_table(
        catalog.card(card),
        voxtral=catalog.voxtral(llm_model),
        llm_dtype=None if llm_dtype == "auto" else llm_dtype,
        request=Request(audio_s=audio_s, new_tokens=new_tokens, beams=beams, batch=batch),
        attention=cast(Attention, attention),
    )
    return PlanReport(card=catalog.card(card), pairs=tuple(pairs))
