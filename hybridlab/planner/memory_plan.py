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
from hybridlab.planner.activations import Request, voxtral_phases, whisper_phases
from hybridlab.planner.estimate import Estimate, largest, total
from hybridlab.planner.weights import (
    voxtral_host_bytes,
    voxtral_weights_bytes,
    whisper_host_bytes,
    whisper_load_peak_bytes,
    whisper_weights_bytes,
)
from hybridlab.units import GB, MIB

#: Blocks that the caching allocator holds unused, as a share of the transient bytes.
#: GMLake (ASPLOS 2024) measured 15 % on average for training: an upper bound for inference.
SLACK_HIGHEST_SHARE = 0.15
SLACK_SEGMENT_BYTES = 20 * MIB  # small and middle blocks come from segments of 2 and 20 MiB

#: What an operating system, Python and the imported libraries leave of a host for weights.
HOST_BASE_BYTES = int(2.5 * GB)

Fit = Literal["fits", "depends", "does not fit"]
#: Bytes by owner.
MemoryByOwner = dict[str, Estimate]


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

    def moment(self, name: str) -> Estimate:
        """A moment's bytes: `load_peak`, `idle`, `request_peak`, `swap_peak`."""
        return total(list(self.ledger[name].values()))

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
    """Driver context, libraries and cuBLAS workspace of one process."""
    if card is catalog.HOST:
        return Estimate.exact(0)
    workspace = cublas_workspace_bytes(card.compute_capability)
    return Estimate(*card.context_bytes) + Estimate.exact(workspace)


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

    card: Card
    context: MemoryByOwner
    llm: MemoryByOwner
    asr: MemoryByOwner
    #: Beside the recogniser's weights while it is loaded.
    second_copy: MemoryByOwner
    llm_request: Estimate
    asr_request: Estimate

    @property
    def resident(self) -> MemoryByOwner:
        return self.context | self.llm | self.asr

    def working(self, **requests: Estimate) -> MemoryByOwner:
        """The transient bytes of requests that are served together, and what the allocator holds
        beside them."""
        named = {name.replace("_", " "): size for name, size in requests.items()}
        cache = total([allocator_cache_bytes(self.card, size) for size in requests.values()])
        return {**named, "allocator cache": cache}

    def working_in_turn(self) -> MemoryByOwner:
        """One model at work at a time."""
        return self.working(request=largest([self.llm_request, self.asr_request]))


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
    llm_phases = voxtral_phases(voxtral, request, dtype=llm_dtype, card=card, attention=attention)
    asr_phases = whisper_phases(whisper, request, **kept, card=card)
    return PairParts(
        card=card,
        context={"context": context_bytes(card)},
        llm={"llm weights": Estimate.exact(voxtral_weights_bytes(voxtral, dtype=llm_dtype))},
        asr={"asr weights": Estimate.exact(asr_bytes)},
        second_copy={"second copy": Estimate.exact(load_bytes - asr_bytes)},
        llm_request=largest(list(llm_phases.values())),
        asr_request=largest(list(asr_phases.values())),
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
    load = parts.resident | parts.second_copy
    if load_order == "asr-first":  # the recogniser's copy has gone before the LLM comes
        alone = parts.context | parts.asr | parts.second_copy
        load = max(alone, parts.resident, key=lambda own: total(list(own.values())).expected)
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
    )


def allocator_cache_bytes(card: Card, served: Estimate) -> Estimate:
    """What a caching allocator holds beside so many transient bytes without using it."""
    if card is catalog.HOST:  # no caching allocator
        return Estimate.exact(0)
    highest = int(SLACK_HIGHEST_SHARE * served.high) + SLACK_SEGMENT_BYTES
    return Estimate(0, SLACK_SEGMENT_BYTES, highest)


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
