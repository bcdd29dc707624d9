"""The predicted ledger of a pair on a card: every owner at load, at rest, at work and at a swap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hybridlab import catalog
from hybridlab.catalog import (
    Attention,
    Card,
    LoadOrder,
    LoadPath,
    VoxtralModel,
    WhisperModel,
)
from hybridlab.planner.activations import Request
from hybridlab.planner.allocator import (
    request_bytes,
    resident_cache_bytes,
    tensors_cache_bytes,
)
from hybridlab.planner.estimate import ZERO, Estimate, largest, total
from hybridlab.planner.weights import (
    voxtral_host_bytes,
    voxtral_weights_bytes,
    whisper_host_bytes,
    whisper_load_peak_bytes,
    whisper_weights_bytes,
)
from hybridlab.units import GB, MIB

#: What an operating system, Python and the imported libraries leave of a host for weights.
HOST_BASE_BYTES = int(2.5 * GB)

Fit = Literal["fits", "depends", "does not fit"]
#: Bytes by owner.
MemoryByOwner = dict[str, Estimate]
#: What the allocator has reserved and nobody uses.
CACHE = "allocator cache"
#: Moments that are read from an allocator.
MOMENTS = ("load_peak", "idle", "request_peak")


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """One row of `hybridlab plan`. All bytes; `total_bytes` is the highest of the moments.

    Plain figures are the expected ones. `ledger` holds each moment's owners with their ranges.
    `fit` weighs ranges: `fits` when the highest total fits the smallest capacity that the card is
    sold with, `does not fit` when the lowest total exceeds the largest capacity, `depends` between.
    """

    card: str
    llm_model: str
    llm_dtype: str
    asr_model: str
    asr_backend: str
    asr_dtype: str
    attention: str
    capacity: Estimate
    host_bytes: int
    ledger: Mapping[str, Mapping[str, Estimate]]
    #: Segments that requests before this moment have left in the allocator, which it gives up
    #: before it runs out of memory.
    left: Mapping[str, Estimate]

    def moment(self, name: str) -> Estimate:
        """A moment's bytes: `load_peak`, `idle`, `request_peak`, `swap_peak`."""
        return total(list(self.ledger[name].values()))

    def allocated(self, name: str) -> Estimate:
        """What torch's `memory_allocated` says of a moment, or `max_memory_allocated`."""
        owners = self.ledger[name].items()
        return total([size for owner, size in owners if owner not in ("context", CACHE)])

    def reserved(self, name: str) -> Estimate:
        """The same of `memory_reserved`, where nothing else wants the memory."""
        return total([self.allocated(name), self.ledger[name][CACHE], self.left.get(name, ZERO)])

    def expected(self, name: str) -> dict[str, int]:
        """A moment's owners and their expected bytes."""
        return {owner: size.expected for owner, size in self.ledger[name].items()}

    @property
    def weights_bytes(self) -> int:
        steady = self.ledger["idle"]
        return steady["llm weights"].expected + steady["asr weights"].expected

    @property
    def load_peak_bytes(self) -> int:
        return self.moment("load_peak").expected

    @property
    def idle_bytes(self) -> int:
        return self.moment("idle").expected

    @property
    def request_peak_bytes(self) -> int:
        return self.moment("request_peak").expected

    @property
    def total(self) -> Estimate:
        return largest([self.moment("load_peak"), self.moment("request_peak")])

    @property
    def total_bytes(self) -> int:
        return self.total.expected

    @property
    def capacity_bytes(self) -> int:
        return self.capacity.expected

    @property
    def utilization(self) -> float:
        return self.total_bytes / self.capacity_bytes

    @property
    def margin_bytes(self) -> int:
        return self.capacity_bytes - self.total_bytes

    @property
    def fits(self) -> bool:
        """Whether the expected total fits the expected capacity."""
        return self.margin_bytes >= 0

    @property
    def fit(self) -> Fit:
        return fit_of(self.total, self.capacity)

    def fits_host(self, host_bytes: int) -> bool:
        """Whether a host of this size can load the pair (Colab's T4 machine has 12.7 GB)."""
        return self.host_bytes + HOST_BASE_BYTES <= host_bytes

    def as_dict(self) -> dict[str, Any]:
        """Flat figures for JSON."""
        named = ("card", "llm_model", "llm_dtype", "asr_model", "asr_backend", "asr_dtype")
        derived = (
            *("weights_bytes", "load_peak_bytes", "idle_bytes", "request_peak_bytes"),
            *("total_bytes", "capacity_bytes", "utilization", "margin_bytes", "fits", "fit"),
        )
        return {
            **{name: getattr(self, name) for name in (*named, "attention", *derived, "host_bytes")},
            **{f"{name}_reserved_bytes": self.reserved(name).expected for name in MOMENTS},
            "swap_peak_bytes": self.moment("swap_peak").expected,
            "total_low_bytes": self.total.low,
            "total_high_bytes": self.total.high,
            "ledger": {moment: self.expected(moment) for moment in self.ledger},
        }


def fit_of(needed: Estimate, capacity: Estimate) -> Fit:
    """`fits` whatever the range holds, `does not fit` at all, or `depends` between the two."""
    if needed.high <= capacity.low:
        return "fits"
    return "does not fit" if needed.low > capacity.high else "depends"


def context_bytes(card: Card) -> Estimate:
    """Driver context and libraries of one process, outside torch's allocator."""
    return ZERO if card is catalog.HOST else Estimate(*card.context_bytes)


def library_bytes(card: Card, backend: str) -> Estimate:
    """What a recogniser's own library holds there beside."""
    return ZERO if card is catalog.HOST else Estimate(*catalog.backend(backend).library_bytes)


def workspace_bytes(card: Card) -> Estimate:
    """cuBLAS' workspace, which torch allocates for each thread's stream."""
    if card is catalog.HOST:
        return ZERO
    return Estimate.exact(cublas_workspace_bytes(card.compute_capability))


def cublas_workspace_bytes(capability: tuple[int, int]) -> int:
    """cuBLAS' default workspace (PyTorch notes on CUDA: 8 MiB; 32 MiB from Hopper on)."""
    return (32 if capability >= (9, 0) else 8) * MIB


def default_voxtral_dtype(card: Card) -> str:
    """bfloat16 where the card has it in hardware, else float16 (a T4 only emulates bfloat16)."""
    return "bfloat16" if "bfloat16" in card.native_dtypes else "float16"


@dataclass(frozen=True, kw_only=True)
class PairParts:
    """What the bytes of a pair are made of, each part by its owner, and transient ones of a request
    to either model."""

    #: Of one process: the driver's, cuBLAS' and the allocator's.
    process: MemoryByOwner
    llm: MemoryByOwner
    asr: MemoryByOwner
    #: Beside the recogniser's weights while it is loaded.
    second_copy: MemoryByOwner
    #: Unused then beside that copy.
    loading_cache: Estimate
    #: By role: transient bytes of a request, and what the allocator holds unused beside them.
    requests: Mapping[str, tuple[Estimate, Estimate]]

    @property
    def resident(self) -> MemoryByOwner:
        return self.process | self.llm | self.asr

    @property
    def loading(self) -> MemoryByOwner:
        """cuBLAS' workspaces come with the first request."""
        cache = {CACHE: self.process[CACHE] + self.loading_cache}
        loaded = self.resident | self.second_copy | cache
        return {owner: size for owner, size in loaded.items() if owner != "workspaces"}

    def working(self, *roles: str) -> MemoryByOwner:
        """Requests to these roles that are served together."""
        sizes, caches = zip(*(self.requests[role] for role in roles), strict=True)
        named = {f"{role} request": size for role, size in zip(roles, sizes, strict=True)}
        return {**named, CACHE: total([self.process[CACHE], *caches])}

    def left_by(self, *roles: str) -> Estimate:
        """What loading and requests to these roles may leave reserved: nothing, or all that they
        took."""
        taken = total([part for role in roles for part in self.requests[role]])
        loading = total(list(self.second_copy.values()))
        return Estimate(0, taken.expected // 2, taken.high + loading.high)

    def working_in_turn(self) -> MemoryByOwner:
        """One model at work at a time."""
        sizes, caches = zip(*self.requests.values(), strict=True)
        cache = self.process[CACHE] + largest(list(caches))
        return {"request": largest(list(sizes)), CACHE: cache}


def pair_parts(
    card: Card,
    whisper: WhisperModel,
    voxtral: VoxtralModel,
    *,
    backend: str,
    dtype: str,
    llm_dtype: str | None = None,
    request: Request | None = None,
    attention: Attention = "auto",
    load_path: LoadPath = "direct",
) -> PairParts:
    """`ParameterError` where the backend cannot keep the recogniser in `dtype`."""
    request = request or Request()
    llm_dtype = llm_dtype or default_voxtral_dtype(card)
    kept: dict[str, Any] = {"backend": backend, "dtype": dtype}
    asr_bytes = whisper_weights_bytes(whisper, **kept)
    load_bytes = whisper_load_peak_bytes(whisper, **kept, path=load_path)
    return PairParts(
        process={
            "context": context_bytes(card) + library_bytes(card, backend),
            "workspaces": workspace_bytes(card),
            CACHE: resident_cache_bytes(card) + tensors_cache_bytes(card, backend, asr_bytes),
        },
        llm={"llm weights": Estimate.exact(voxtral_weights_bytes(voxtral, dtype=llm_dtype))},
        asr={"asr weights": Estimate.exact(asr_bytes)},
        second_copy={"second copy": Estimate.exact(load_bytes - asr_bytes)},
        loading_cache=tensors_cache_bytes(card, backend, load_bytes - asr_bytes),
        requests={
            "llm": request_bytes(
                voxtral,
                request,
                card,
                backend="transformers",
                dtype=llm_dtype,
                attention=attention,
            ),
            "asr": request_bytes(whisper, request, card, **kept),
        },
    )


def plan_pair(
    card: Card,
    whisper: WhisperModel,
    voxtral: VoxtralModel,
    *,
    backend: str,
    dtype: str,
    llm_dtype: str | None = None,
    request: Request | None = None,
    capacity_bytes: int | None = None,
    attention: Attention = "auto",
    load_path: LoadPath = "direct",
    load_order: LoadOrder = "llm-first",
) -> PairPlan:
    """Predicted bytes of this pair, both resident, one request at a time.

    `capacity_bytes` replaces the card's usable bytes where the real device has been asked.
    """
    llm_dtype = llm_dtype or default_voxtral_dtype(card)
    kept: dict[str, Any] = {"backend": backend, "dtype": dtype}
    parts = pair_parts(
        card,
        whisper,
        voxtral,
        **kept,
        llm_dtype=llm_dtype,
        request=request,
        attention=attention,
        load_path=load_path,
    )
    load = parts.loading
    if load_order == "asr-first":  # the recogniser's copy has gone before the LLM comes
        alone, both = (
            {owner: size for owner, size in load.items() if owner not in later}
            for later in (parts.llm, parts.second_copy)
        )
        load = max(alone, both, key=lambda own: total(list(own.values())).expected)
    at_work = parts.working_in_turn()
    capacity = Estimate(card.usable_bytes, card.usable_bytes, card.usable_bytes_max)
    if capacity_bytes is not None:
        capacity = Estimate.exact(capacity_bytes)
    return PairPlan(
        card=card.name,
        llm_model=voxtral.name,
        llm_dtype=llm_dtype,
        asr_model=whisper.name,
        asr_backend=backend,
        asr_dtype=dtype,
        attention=attention,
        capacity=capacity,
        host_bytes=max(
            whisper_host_bytes(whisper, **kept, path=load_path),
            voxtral_host_bytes(voxtral, dtype=llm_dtype, path=load_path),
        ),
        ledger={
            "load_peak": load,
            "idle": parts.resident,
            "request_peak": parts.resident | at_work,
            # the recogniser comes in beside an LLM that works at the same time
            "swap_peak": parts.resident | parts.second_copy | {"request": at_work["request"]},
        },
        left={
            "idle": parts.left_by(*parts.requests),
            "request_peak": parts.left_by(
                min(parts.requests, key=lambda role: parts.requests[role][0].expected)
            ),
        },
    )


def plan_table(
    card: Card,
    *,
    voxtral: VoxtralModel | None = None,
    sizes: tuple[str, ...] = catalog.WHISPER_SIZES,
    **options: Any,
) -> list[PairPlan]:
    """One plan for each size x backend x dtype that the card runs natively; `options` as of
    `plan_pair`."""
    llm = voxtral or catalog.voxtral("mini-3b")
    return [
        plan_pair(card, catalog.whisper(size), llm, backend=backend, dtype=dtype, **options)
        for size in sizes
        for backend, dtype in native_combinations(card)
    ]


def native_combinations(card: Card) -> Iterator[tuple[str, str]]:
    """Backends and the dtypes that they keep and the card computes in."""
    for backend in catalog.BACKENDS.values():
        for dtype in backend.dtypes:
            if dtype == "int8" or dtype in card.native_dtypes:
                yield backend.name, dtype
