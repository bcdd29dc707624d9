"""What each strategy and variant of the lab means to a server that has a worker for each model."""

from __future__ import annotations

from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.errors import UnavailableError

_ONE_PROCESS = "works on one request within one process, and the server has a worker for each model"
_SERVER = "is how notebook 05 measures this very server, with --only for one of two"


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Who may work when, and where Whisper's weights wait."""

    #: Both models may be at work; otherwise one at a time, turn by turn.
    at_once: bool = False
    #: Requests of a kind that wait go through their model in one call.
    batches: bool = True
    #: Voxtral transcribes too, and there is no Whisper.
    solo: bool = False
    #: Give the allocator's cache back after each turn.
    clean: bool = False
    #: The variant of `swapping` by which Whisper's weights come and go; '' keeps them.
    swap: str = ""
    mps: bool = False
    expand_segments: bool = False
    asr_on_cpu: bool = False


def sharing_of(strategy: str, variant: str) -> Sharing:
    """`ParameterError` for a name that the lab does not know, `UnavailableError` for a variant that
    is not served."""
    facts, own = catalog.strategy(strategy), catalog.variant(strategy, variant)
    if own.nearest:
        why = _SERVER if own.in_servers else _ONE_PROCESS
        nearest = own.nearest if "/" in own.nearest else f"{strategy}/{own.nearest}"
        raise UnavailableError(f"{strategy}/{variant} {why}; use {nearest}")
    return Sharing(
        at_once=own.concurrent,
        batches=own.batches,
        solo=not facts.has_asr,
        clean=own.clears_cache,
        swap=own.name if own.offloader else "",
        mps=own.place == "workers-mps",
        expand_segments=own.expands_segments,
        asr_on_cpu=not own.shares_device,
    )
