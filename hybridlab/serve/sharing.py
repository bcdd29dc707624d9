"""What each strategy and variant of the lab means to a server that has a worker for each tenant."""

from __future__ import annotations

from dataclasses import dataclass

from hybridlab.errors import ParameterError, UnavailableError


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Who may work when, and where Whisper's weights wait."""

    #: Both tenants may be at work; otherwise one at a time, turn by turn.
    at_once: bool = False
    #: Requests of a kind that wait go through their tenant in one call.
    batches: bool = True
    #: Voxtral transcribes too, and there is no Whisper.
    solo: bool = False
    #: Give the allocator's cache back after each turn.
    clean: bool = False
    #: How Whisper's weights come and go (a mover of `strategies.swapping`); '' keeps them.
    swap: str = ""
    mps: bool = False
    expand_segments: bool = False
    whisper_on_cpu: bool = False


SHARINGS: dict[tuple[str, str], Sharing] = {
    ("solo", "naive"): Sharing(solo=True),
    ("sequential", "plain"): Sharing(batches=False),
    ("sequential", "empty-cache"): Sharing(clean=True),
    ("sequential", "expandable-segments"): Sharing(expand_segments=True),
    ("sequential", "asyncio"): Sharing(batches=False),
    ("sequential", "batched"): Sharing(),
    ("parallel", "processes"): Sharing(at_once=True),
    ("parallel", "processes-mps"): Sharing(at_once=True, mps=True),
    ("parallel", "ctranslate2"): Sharing(at_once=True),
    ("parallel", "whisper-on-cpu"): Sharing(at_once=True, whisper_on_cpu=True),
    ("pipelined", "lookahead"): Sharing(at_once=True),
    ("swapping", "reload-warm"): Sharing(swap="reload-warm"),
    ("swapping", "reload-cold"): Sharing(swap="reload-cold"),
    ("swapping", "to-cpu"): Sharing(swap="to-cpu"),
    ("swapping", "pinned"): Sharing(swap="pinned"),
    ("swapping", "arena"): Sharing(swap="arena"),
}

#: What cannot be had with a worker for each tenant, and what comes nearest.
IN_ONE_PROCESS: dict[tuple[str, str], str] = {
    ("solo", "shared-prefix"): "naive",
    ("parallel", "threads"): "processes",
    ("parallel", "streams"): "processes-mps",
    ("swapping", "arena-overlapped"): "arena",
}
#: What is a server itself, measured by notebook 05.
SERVERS: dict[tuple[str, str], str] = {
    ("parallel", "single-container"): "processes",
    ("parallel", "separate-containers"): "processes",
}


def sharing_of(strategy: str, variant: str) -> Sharing:
    """`ParameterError` for a name that the lab does not know, `UnavailableError` for a variant that
    needs both tenants in one process."""
    known = {**dict.fromkeys(SHARINGS), **dict.fromkeys(IN_ONE_PROCESS), **dict.fromkeys(SERVERS)}
    strategies = list(dict.fromkeys(name for name, _ in known))
    if strategy not in strategies:
        raise ParameterError.unknown_name("strategy", strategy, strategies)
    variants = [name for owner, name in known if owner == strategy]
    if variant not in variants:
        raise ParameterError.unknown_name(f"variant of {strategy}", variant, variants)
    if (nearest := IN_ONE_PROCESS.get((strategy, variant))) is not None:
        raise UnavailableError(
            f"{strategy} / {variant} works on one request within one process, and the server has a "
            f"worker for each tenant; use {strategy} / {nearest}"
        )
    if (nearest := SERVERS.get((strategy, variant))) is not None:
        raise UnavailableError(
            f"{strategy} / {variant} is how notebook 05 measures this very server; "
            f"use {strategy} / {nearest} here, with --only for one of two servers"
        )
    return SHARINGS[strategy, variant]
