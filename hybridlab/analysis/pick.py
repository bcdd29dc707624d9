"""Which Whisper beside Voxtral on a card: the one decision, which command line, server, report,
widgets, README and compose files show. Predicted, never measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hybridlab import catalog
from hybridlab.catalog import Attention, Card
from hybridlab.errors import ParameterError
from hybridlab.planner import Estimate, PairPlan, Request, plan_table
from hybridlab.planner.limits import MOST, longest_audio_s
from hybridlab.planner.memory_plan import fit_of
from hybridlab.units import GB, gib

#: GB that must stay free. A plan's range is what the planner leaves open of the pair itself; this
#: is for what it does not count: one more program on the card, whose driver context alone takes
#: 0.1 to 0.6 GiB (`Card.context_bytes`).
DEFAULT_MARGIN_GB = 0.5
DEFAULT_MARGIN_BYTES = int(DEFAULT_MARGIN_GB * GB)
MOST_MARGIN_GB = 10_000

RULE = (
    "the lowest published word error rate among what fits and leaves the margin, then the dtype "
    "that keeps most of the released weights, then the catalog's order of backends"
)
#: Bits of a dtype's significand. OpenAI released Whisper in float16: float32 keeps the same values.
SIGNIFICAND_BITS = {"float32": 24, "float16": 11, "bfloat16": 8, "int8": 7, "int4": 3}
RELEASED_BITS = SIGNIFICAND_BITS["float16"]
#: What each place of `rank` says of the one that comes later.
WHY_LATER = ("higher WER", "smaller model", "less precise", "later backend")
#: For a size, backend or dtype that is left open.
AUTO = "auto"
#: The kernel that a remedy tries.
EXPANDED: Attention = "expanded_kv"


def checked_margin_bytes(margin_gb: float) -> int:
    """`ParameterError` for a margin below zero, or beyond any card."""
    if not 0 <= margin_gb <= MOST_MARGIN_GB:
        raise ParameterError(f"margin_gb is {margin_gb:g}; give 0 to {MOST_MARGIN_GB}")
    return int(margin_gb * GB)


def margin_words(margin_bytes: float = DEFAULT_MARGIN_BYTES) -> str:
    """'a margin of 0.47 GiB': in the unit of the memory that stands beside it."""
    return f"a margin of {gib(margin_bytes):.2f} GiB"


def checked_request(
    *, audio_s: float, new_tokens: int = catalog.ANSWER_TOKENS, beams: int = 1, batch: int = 1
) -> Request:
    """What Voxtral is asked; `ParameterError` for more than it takes, or than one card serves."""
    for name, value, most, why in (
        ("audio_s", audio_s, catalog.VOXTRAL_MAX_ANSWER_S, "s of audio with a question"),
        ("new_tokens", new_tokens, catalog.VOXTRAL_CONTEXT_TOKENS, "tokens with their context"),
    ):
        if value > most:
            raise ParameterError(f"{name} is {value:g}; Voxtral takes at most {most:g} {why}")
    for name, count in (("beams", beams), ("batch", batch)):
        if count > MOST:
            raise ParameterError(f"{name} is {count}; one card serves at most {MOST}")
    return Request(audio_s=audio_s, new_tokens=new_tokens, beams=beams, batch=batch)


def rank(size: str, backend: str, dtype: str) -> tuple[float, ...]:
    """Sorts recognisers by `RULE`, the best first; sizes without a published word error rate come
    after all others, the largest first, and so do names of older runs."""
    model = catalog.whisper(size)
    wer = math.inf if model.published_wer is None else model.published_wer
    lost_bits = RELEASED_BITS - min(SIGNIFICAND_BITS.get(dtype, 0), RELEASED_BITS)
    return wer, -model.parameters, lost_bits, [*catalog.BACKENDS, backend].index(backend)


def leaves(needed: Estimate, capacity: Estimate, margin_bytes: int = DEFAULT_MARGIN_BYTES) -> bool:
    """Whether it fits whatever its range holds, and is expected to leave so many bytes."""
    spare = capacity.expected - needed.expected
    return fit_of(needed, capacity) == "fits" and spare >= margin_bytes


def plan_leaves(plan: PairPlan, margin_bytes: int = DEFAULT_MARGIN_BYTES) -> bool:
    """`leaves` of a pair on its card."""
    return leaves(plan.total, plan.capacity, margin_bytes)


def pick_of(plans: Iterable[PairPlan], margin_bytes: int = DEFAULT_MARGIN_BYTES) -> PairPlan | None:
    """The best of these pairs by `RULE`; None where none leaves the margin."""
    fitting = [plan for plan in plans if plan_leaves(plan, margin_bytes)]
    return min(fitting, key=_order, default=None)


def best_by_size(
    plans: Sequence[PairPlan], margin_bytes: int = DEFAULT_MARGIN_BYTES
) -> list[PairPlan]:
    """The pick of each size, or what needs least of it where none leaves the margin."""
    best = []
    for size in dict.fromkeys(plan.asr_model for plan in plans):
        own = [plan for plan in plans if plan.asr_model == size]
        best.append(pick_of(own, margin_bytes) or min(own, key=lambda plan: plan.total_bytes))
    return best


def candidates(
    card: Card, *, size: str = AUTO, backend: str = AUTO, dtype: str = AUTO, **options: Any
) -> list[PairPlan]:
    """Plans of all that these leave open; `options` as of `plan_table`."""
    sizes = catalog.WHISPER_SIZES if size == AUTO else (size,)
    return [
        plan
        for plan in plan_table(card, sizes=sizes, **options)
        if backend in (AUTO, plan.asr_backend) and dtype in (AUTO, plan.asr_dtype)
    ]


def pick(
    card: Card,
    request: Request | None = None,
    margin_bytes: int = DEFAULT_MARGIN_BYTES,
    **options: Any,
) -> PairPlan | None:
    """The Whisper for this card and request; `options` as of `candidates`. None where none leaves
    the margin."""
    return pick_of(candidates(card, request=request, **options), margin_bytes)


def why_not(plan: PairPlan, best: PairPlan | None, margin_bytes: int = DEFAULT_MARGIN_BYTES) -> str:
    """Why this pair is not the pick; 'pick' where it is."""
    if plan.fit != "fits":
        return plan.fit
    if not plan_leaves(plan, margin_bytes):
        return "below margin"
    assert best is not None  # this pair at least leaves the margin
    if plan == best:
        return "pick"
    places = zip(WHY_LATER, _order(plan), _order(best), strict=False)
    return next((why for why, own, other in places if own != other), "more bytes")


def _order(plan: PairPlan) -> tuple[float, ...]:
    """`rank`, then the fewer bytes."""
    return *rank(plan.asr_model, plan.asr_backend, plan.asr_dtype), plan.total_bytes


def recognizer_name(plan: PairPlan) -> str:
    """'large-v3 (transformers, float16)'."""
    return f"{plan.asr_model} ({plan.asr_backend}, {plan.asr_dtype})"


def serve_options(plan: PairPlan) -> list[str]:
    """The arguments of `hybridlab` that serve this pair."""
    attention = [] if plan.attention == "auto" else [f"--attention {plan.attention}"]
    return [
        "serve",
        f"--llm-model {plan.llm_model}",
        f"--llm-dtype {plan.llm_dtype}",
        *attention,
        f"--asr-model {plan.asr_model}",
        f"--asr-backend {plan.asr_backend}",
        f"--asr-dtype {plan.asr_dtype}",
    ]


def remedy(
    plan: PairPlan, request: Request, margin_bytes: int = DEFAULT_MARGIN_BYTES
) -> str | None:
    """What would make this pair's size fit and leave the margin: another dtype or backend, the KV
    heads expanded before attention, or a shorter audio; None where it does, or nothing would."""

    def found(request: Request, attention: str) -> PairPlan | None:
        voxtral = catalog.voxtral(plan.llm_model)
        kept = {"voxtral": voxtral, "llm_dtype": plan.llm_dtype, "size": plan.asr_model}
        card = catalog.card(plan.card)
        return pick(card, request, margin_bytes, **kept, attention=attention)

    def longest_s(attention: str) -> float:
        return longest_audio_s(lambda s: found(replace(request, audio_s=s), attention) is not None)

    if plan_leaves(plan, margin_bytes):
        return None
    for option, attention in (("", plan.attention), (" with --attention expanded_kv", EXPANDED)):
        other = found(request, attention)
        if other is not None:
            return f"fits as {other.asr_backend} {other.asr_dtype}{option}"
    plain_s, expanded_s = longest_s(plan.attention), longest_s(EXPANDED)
    if not expanded_s:
        return None
    beyond = f"{expanded_s:g} s with --attention expanded_kv"
    plainly = f"{plain_s:g} s of audio"
    if expanded_s <= plain_s:
        return f"fits up to {plainly}"
    return f"fits up to {plainly}, {beyond}" if plain_s else f"fits up to {beyond}"
