"""What each way of sharing a card takes, moment by moment: both resident, at once, or in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hybridlab.catalog import Card, VoxtralModel, WhisperModel
from hybridlab.planner.estimate import largest, total
from hybridlab.planner.memory_plan import CACHE, MemoryByOwner, PairParts, pair_parts

#: Owners of every byte at each moment that could be a ledger's worst.
Moments = dict[str, MemoryByOwner]


def memory_by_strategy(
    card: Card, whisper: WhisperModel, voxtral: VoxtralModel, **pair: Any
) -> MemoryByOwner:
    """Highest bytes on the device by ledger, loading included; arguments as of `pair_parts`."""
    return {
        name: largest([total(list(owners.values())) for owners in moments.values()])
        for name, moments in ledger_by_strategy(card, whisper, voxtral, **pair).items()
    }


def ledger_by_strategy(
    card: Card, whisper: WhisperModel, voxtral: VoxtralModel, **pair: Any
) -> dict[str, Moments]:
    """Every ledger of `LEDGERS` for this pair; arguments as of `pair_parts`."""
    parts = pair_parts(card, whisper, voxtral, **pair)
    return {name: ledger(parts) for name, ledger in LEDGERS.items()}


def _solo(parts: PairParts) -> Moments:
    """The LLM alone does both jobs."""
    alone = parts.process | parts.llm
    return {"at rest": alone, "at work": alone | parts.working("llm")}


def _sequential(parts: PairParts) -> Moments:
    """Both resident, one at work at a time."""
    return {**_loaded(parts), "one at work": parts.resident | parts.working_in_turn()}


def _parallel(parts: PairParts) -> Moments:
    """Both at work at once, in one process."""
    both = parts.working("llm", "asr")
    return {**_loaded(parts), "both at work": parts.resident | both}


def _two_processes(parts: PairParts) -> Moments:
    """The same with a second driver context, workspace and allocator."""
    second = {owner: size + size for owner, size in parts.process.items() if owner != CACHE}
    return {
        moment: owners | second | {CACHE: owners[CACHE] + parts.process[CACHE]}
        for moment, owners in _parallel(parts).items()
    }


def _loaded(parts: PairParts) -> Moments:
    return {"loading": parts.loading, "at rest": parts.resident}


def _swapping_asr(parts: PairParts) -> Moments:
    """The LLM stays, the recogniser comes and goes."""
    alone = parts.process | parts.llm
    return {
        "at rest": alone,
        "Voxtral at work": alone | parts.working("llm"),
        "Whisper comes in": parts.resident | parts.second_copy,
        "Whisper at work": parts.resident | parts.working("asr"),
    }


def _swapping_overlapped(parts: PairParts) -> Moments:
    """The recogniser comes in while the LLM works."""
    moments = _swapping_asr(parts)
    at_work = parts.working("llm")
    comes_in = {"Whisper comes in": moments["Whisper comes in"] | at_work}
    return {**{n: owners for n, owners in moments.items() if n != "Voxtral at work"}, **comes_in}


def _swapping_both(parts: PairParts) -> Moments:
    """One model at a time is there at all."""
    asr = parts.process | parts.asr
    return {
        "Voxtral at work": parts.process | parts.llm | parts.working("llm"),
        "Whisper comes in": asr | parts.second_copy,
        "Whisper at work": asr | parts.working("asr"),
    }


def _fixed_block(parts: PairParts) -> Moments:
    """The same in a block of the larger model's size, which is never given back."""
    larger = max(parts.llm, parts.asr, key=lambda part: total(list(part.values())).expected)
    return {
        "at work": parts.process | larger | parts.working_in_turn(),
        "Whisper comes in": _swapping_both(parts)["Whisper comes in"],
    }


#: By the names that variants of `hybridlab.catalog.strategies` give as theirs. Buffers keep a copy
#: of every swapped model on the host as well.
LEDGERS: dict[str, Callable[[PairParts], Moments]] = {
    "solo": _solo,
    "sequential": _sequential,
    "parallel, one process": _parallel,
    "parallel, two processes": _two_processes,
    "swapping Whisper": _swapping_asr,
    "swapping Whisper, overlapped": _swapping_overlapped,
    "swapping both": _swapping_both,
    "swapping both, fixed block": _fixed_block,
}
