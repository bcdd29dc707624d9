"""What each strategy and variant of the lab means to a server that has a worker for each model."""

from __future__ import annotations

from dataclasses import dataclass

from hybridlab.errors import ParameterError, UnavailableError


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
    #: How Whisper's weights come and go (a mover of `strategies.swapping`); '' keeps them.
    swap: str = ""
    mps: bool = False
    expand_segments: bool = False
    asr_on_cpu: bool = False


SHARINGS: dict[tuple[str, str], Sharing] = {
    ("solo", "two-requests"): Sharing(solo=True),
    ("sequential", "plain"): Sharing(batches=False),
    ("sequential", "empty-cache"): Sharing(clean=True),
    ("sequential", "expandable-segments"): Sharing(expand_segments=True),
    ("sequential", "asyncio"): Sharing(batches=False),
    ("sequential", "batched"): Sharing(),
    ("parallel", "processes"): Sharing(at_once=True),
    ("parallel", "processes-mps"): Sharing(at_once=True, mps=True),
    ("parallel", "ctranslate2"): Sharing(at_once=True),
    ("parallel", "whisper-on-cpu"): Sharing(at_once=True, asr_on_cpu=True),
    ("pipelined", "prefetch"): Sharing(at_once=True),
    ("swapping", "reload-cached"): Sharing(swap="reload-cached"),
    ("swapping", "reload-from-disk"): Sharing(swap="reload-from-disk"),
    ("swapping", "module-to-cpu"): Sharing(swap="module-to-cpu"),
    ("swapping", "pinned"): Sharing(swap="pinned"),
    ("swapping", "single-buffer"): Sharing(swap="single-buffer"),
}

_ONE_PROCESS = "works on one request within one process, and the server has a worker for each model"
_SERVER = "is how notebook 05 measures this very server, with --only for one of two"
#: What is not served: what comes nearest, and why it is not.
NOT_SERVED: dict[tuple[str, str], tuple[str, str]] = {
    ("solo", "shared-prefix"): ("two-requests", _ONE_PROCESS),
    ("parallel", "threads"): ("processes", _ONE_PROCESS),
    ("parallel", "streams"): ("processes-mps", _ONE_PROCESS),
    ("parallel", "single-container"): ("processes", _SERVER),
    ("parallel", "separate-containers"): ("processes", _SERVER),
    ("swapping", "single-buffer-overlapped"): ("single-buffer", _ONE_PROCESS),
}


def sharing_of(strategy: str, variant: str) -> Sharing:
    """`ParameterError` for a name that the lab does not know, `UnavailableError` for a variant that
    is not served."""
    known = [*SHARINGS, *NOT_SERVED]
    strategies = list(dict.fromkeys(name for name, _ in known))
    if strategy not in strategies:
        raise ParameterError.unknown_name("strategy", strategy, strategies)
    variants = [name for owner, name in known if owner == strategy]
    if variant not in variants:
        raise ParameterError.unknown_name(f"variant of {strategy}", variant, variants)
    if (strategy, variant) in NOT_SERVED:
        nearest, why = NOT_SERVED[strategy, variant]
        raise UnavailableError(f"{strategy} / {variant} {why}; use {strategy} / {nearest}")
    return SHARINGS[strategy, variant]
