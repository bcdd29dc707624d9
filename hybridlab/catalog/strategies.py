"""How two models can share a device: every strategy and variant, with what the rest of the lab asks
about one. Parameters, planner, placement, server, figures and tables read it here; the code that
runs a strategy is in `hybridlab.strategies`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from hybridlab.catalog.registry import Registry

#: Where a variant has its models: both in the case's process; a worker process each, also behind
#: NVIDIA MPS; the recogniser on the host; both in one server, or a server each.
Place = Literal["process", "workers", "workers-mps", "asr-on-host", "server", "servers"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run a strategy."""

    name: str
    #: What it adds to its strategy's advice, in plain words; '' for nothing.
    manner: str = ""
    #: Its notebook measures it unless its parameters say otherwise.
    default: bool = False
    place: Place = "process"
    #: Parameters of its notebook that are options of its implementation.
    options: tuple[str, ...] = ()
    #: The recogniser's backend in place of the pair's.
    backend: str = ""
    #: Works on several requests at once, which only `Strategy.stream` shows.
    streams: bool = False
    #: Both models may be at work at the same time.
    concurrent: bool = False
    #: A server puts waiting requests of a kind into one call.
    batches: bool = True
    #: The allocator's cache is given back after each model's turn.
    clears_cache: bool = False
    expands_segments: bool = False
    #: Moves weights, `module:class` of a `WeightOffloader`.
    offloader: str = ""
    #: Keeps weights in host memory, which is the device's own on a CPU.
    host_copy: bool = False
    #: Reads the weights from their files at each swap, past the page cache.
    from_disk: bool = False
    #: Copies one model's weights behind the other's work.
    overlaps_copies: bool = False
    #: Its ledger among `hybridlab.planner.per_strategy.LEDGERS`, and the one where both models are
    #: swapped; '' where the planner predicts none.
    ledger: str = ""
    ledger_both: str = ""
    #: Where `hybridlab serve` has no such variant: the nearest one that it has, of this strategy or
    #: spelled `strategy/variant`.
    nearest: str = ""

    @property
    def in_servers(self) -> bool:
        """Whether its models are servers, which take seconds to start."""
        return self.place in ("server", "servers")

    @property
    def shares_device(self) -> bool:
        """Whether the recogniser's bytes are the device's."""
        return self.place != "asr-on-host"

    def predicted(self, swap: str) -> str:
        """The planner's ledger where `swap` ('asr' or 'both') is swapped."""
        return self.ledger_both if swap == "both" and self.ledger_both else self.ledger


@dataclass(frozen=True, kw_only=True)
class StrategyFacts:
    """A strategy: who runs when. The first of its variants is the plain one."""

    name: str
    advice: str  #: what to do, in plain words
    implementation: str  #: `module:class` of a `hybridlab.strategies.base.Strategy`
    bound: str  #: what limits its speed
    colour: str
    marker: str
    #: Without a recogniser the LLM transcribes as well.
    has_asr: bool = True
    options: tuple[str, ...] = ()  #: of all its variants
    variants: Registry[Variant] = field(default_factory=lambda: Registry("variant"))

    @property
    def plain(self) -> Variant:
        return next(iter(self.variants.values()))

    def __iter__(self) -> Iterator[Variant]:
        return iter(self.variants.values())


STRATEGIES: Registry[StrategyFacts] = Registry("strategy")


def register(facts: StrategyFacts, variants: Iterable[Variant]) -> StrategyFacts:
    """Add a strategy with its variants. One more variant of a strategy that is there already is
    `strategy(name).variants.register(...)`."""
    facts.variants.kind = f"variant of {facts.name}"
    for variant in variants:
        facts.variants.register(variant)
    return STRATEGIES.register(facts)


register(
    StrategyFacts(
        name="solo",
        advice="Leave Whisper out and let Voxtral transcribe as well",
        implementation="hybridlab.strategies.solo:Solo",
        bound="both requests' compute; with one prefix for both, the weights that every decoded "
        "token reads",
        colour="#444444",
        marker="o",
        has_asr=False,
    ),
    [
        Variant(name="two-requests", default=True, ledger="solo"),
        Variant(
            name="shared-prefix",
            manner="with the audio read once for both requests",
            default=True,
            nearest="two-requests",
        ),
    ],
)
register(
    StrategyFacts(
        name="sequential",
        advice="Keep both loaded and let them take turns",
        implementation="hybridlab.strategies.sequential:Sequential",
        bound="the sum of both models; batches trade latency and bytes for throughput",
        colour="#d55e00",
        marker="s",
    ),
    [
        Variant(name="plain", default=True, batches=False, ledger="sequential"),
        Variant(
            name="empty-cache",
            manner="giving unused memory back after each",
            default=True,
            clears_cache=True,
        ),
        Variant(
            name="expandable-segments",
            manner="in blocks of memory that can grow",
            expands_segments=True,
        ),
        Variant(
            name="asyncio",
            manner="with several requests under way",
            default=True,
            streams=True,
            batches=False,
            options=("max_in_flight",),
        ),
        Variant(
            name="batched",
            manner="with several requests at once",
            default=True,
            streams=True,
            options=("batch",),
        ),
    ],
)
_ONE, _TWO = "parallel, one process", "parallel, two processes"
register(
    StrategyFacts(
        name="parallel",
        advice="Keep both loaded and let them work at the same time",
        implementation="hybridlab.strategies.parallel:Parallel",
        bound="Python's lock, time slices, the memory bus, or the slower of the two",
        colour="#7b3fa0",
        marker="^",
    ),
    [
        Variant(
            name="threads",
            manner="in two threads of one process",
            default=True,
            ledger=_ONE,
            nearest="processes",
            concurrent=True,
        ),
        Variant(
            name="streams",
            manner="on two CUDA streams of one process",
            ledger=_ONE,
            nearest="processes-mps",
            concurrent=True,
        ),
        Variant(
            name="processes",
            manner="in a process each",
            default=True,
            place="workers",
            ledger=_TWO,
            concurrent=True,
        ),
        Variant(
            name="processes-mps",
            manner="in a process each under NVIDIA MPS",
            place="workers-mps",
            ledger=_TWO,
            concurrent=True,
        ),
        Variant(
            name="ctranslate2",
            manner="Whisper through faster-whisper",
            backend="faster-whisper",
            concurrent=True,
        ),
        Variant(
            name="whisper-on-cpu", manner="Whisper on the CPU", place="asr-on-host", concurrent=True
        ),
        Variant(
            name="single-container",
            manner="in one server",
            place="server",
            nearest="processes",
            concurrent=True,
        ),
        Variant(
            name="separate-containers",
            manner="in a server each",
            place="servers",
            nearest="processes",
            concurrent=True,
        ),
    ],
)
register(
    StrategyFacts(
        name="pipelined",
        advice="Keep both loaded and let Whisper hear the next request while Voxtral answers",
        implementation="hybridlab.strategies.pipelined:Pipelined",
        bound="the slower model; a single request is no faster",
        colour="#ca9161",
        marker="v",
    ),
    [Variant(name="prefetch", default=True, streams=True, concurrent=True)],
)
_ASR, _BOTH = "swapping Whisper", "swapping both"
_OFFLOAD = "hybridlab.strategies.offload"
register(
    StrategyFacts(
        name="swapping",
        advice="Keep Whisper off the card and bring it in for each of its turns",
        implementation="hybridlab.strategies.swapping:Swapping",
        bound="the library, the disk, the link",
        colour="#56b4e9",
        marker="D",
        options=("swap",),
    ),
    [
        Variant(
            name="reload-cached",
            manner="from the system's file cache",
            default=True,
            offloader=f"{_OFFLOAD}.base:ReloadCached",
            ledger=_ASR,
            ledger_both=_BOTH,
        ),
        Variant(
            name="reload-from-disk",
            manner="from the disk",
            default=True,
            offloader=f"{_OFFLOAD}.base:ReloadFromDisk",
            from_disk=True,
            ledger=_ASR,
            ledger_both=_BOTH,
        ),
        Variant(
            name="module-to-cpu",
            manner="from the computer's own memory",
            offloader=f"{_OFFLOAD}.per_tensor:ToCpu",
            host_copy=True,
        ),
        Variant(
            name="pinned",
            manner="from pinned memory of the computer",
            offloader=f"{_OFFLOAD}.per_tensor:Pinned",
            host_copy=True,
        ),
        Variant(
            name="single-buffer",
            manner="in one copy from the computer's memory",
            default=True,
            offloader=f"{_OFFLOAD}.single_buffer:SingleBuffer",
            host_copy=True,
            ledger=_ASR,
            ledger_both=f"{_BOTH}, fixed block",
        ),
        Variant(
            name="single-buffer-overlapped",
            manner="in one copy behind Voxtral's work",
            default=True,
            offloader=f"{_OFFLOAD}.single_buffer:OverlappedBuffer",
            host_copy=True,
            overlaps_copies=True,
            ledger=f"{_ASR}, overlapped",
            nearest="single-buffer",
        ),
    ],
)


def strategy(name: str) -> StrategyFacts:
    """The strategy of that name; `ParameterError` lists the good names."""
    return STRATEGIES[name]


def variant(strategy_name: str, name: str) -> Variant:
    """The variant of that strategy; `ParameterError` lists the good names."""
    return STRATEGIES[strategy_name].variants[name]
