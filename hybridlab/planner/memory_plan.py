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
    check_backend_dtype,
    voxtral_host_bytes,
    voxtral_weights_bytes,
    whisper_host_bytes,
    whisper_load_peak_bytes,
    whisper_weights_bytes,
)
from hybridlab.units import GB, MIB

#: cuBLAS' default workspace (PyTorch notes on CUDA: 8 MiB; 32 MiB from Hopper on).
CUBLAS_WORKSPACE_BYTES = 8 * MIB
CUBLAS_WORKSPACE_BYTES_HOPPER = 32 * MIB
#: Blocks that the caching allocator holds and nobody uses, as a share of the transient bytes.
#: GMLake (ASPLOS 2024) measured 15 % on average for training: an upper bound for inference.
SLACK_HIGHEST_SHARE = 0.15
SLACK_SEGMENT_BYTES = 20 * MIB  # small and middle blocks come from segments of 2 and 20 MiB

#: What an operating system, Python and the imported libraries leave of a host for weights.
HOST_BASE_BYTES = int(2.5 * GB)

Fit = Literal["fits", "depends", "does not fit"]


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
        named = (
            "card",
            "llm_model",
            "llm_dtype",
            "asr_model",
            "asr_backend",
            "asr_dtype",
            "attention",
        )
        moments = {
            "load_peak_bytes": self.load_peak_bytes,
            "idle_bytes": self.idle_bytes,
            "request_peak_bytes": self.request_peak_bytes,
            "swap_peak_bytes": self.moment("swap_peak").expected,
        }
        return {
            **{name: getattr(self, name) for name in named},
            "weights_bytes": self.weights_bytes,
            **moments,
            "total_bytes": self.total_bytes,
            "total_low_bytes": self.total.low,
            "total_high_bytes": self.total.high,
            "capacity_bytes": self.capacity_bytes,
            "utilization": self.utilization,
            "margin_bytes": self.margin_bytes,
            "fits": self.fits,
            "fit": self.fit,
            "host_bytes": self.host_bytes,
            "ledger": {moment: self.expected(moment) for moment in self.ledger},
        }


def fit_of(needed: Estimate, capacity: Estimate) -> Fit:
    """`fits` whatever the range holds, `does not fit` at all, or `depends` between the two."""
    if needed.high <= capacity.low:
        return "fits"
    return "does not fit" if needed.low > capacity.high else "depends"


def context_bytes(card: Card, *, processes: int = 1) -> Estimate:
    """Driver context, libraries and cuBLAS workspace: one of each per process."""
    if card is catalog.HOST:
        return Estimate.exact(0)
    workspace = CUBLAS_WORKSPACE_BYTES
    if card.compute_capability >= (9, 0):
        workspace = CUBLAS_WORKSPACE_BYTES_HOPPER
    one = Estimate(*card.context_bytes) + Estimate.exact(workspace)
    return one * processes


def default_voxtral_dtype(card: Card) -> str:
    """bfloat16 where the card has it in hardware, else float16 (a T4 only emulates bfloat16)."""
    return "bfloat16" if "bfloat16" in card.native_dtypes else "float16"


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
    processes: int = 1,
) -> PairPlan:
    """Predicted bytes of this pair, both resident, one request at a time.

    `capacity_bytes` replaces the card's usable bytes where the real device has been asked.
    """
    check_backend_dtype(backend, dtype)
    request = request or Request()
    llm_dtype = llm_dtype or default_voxtral_dtype(card)
    tenants = {"backend": backend, "dtype": dtype}
    owners = {
        "context": context_bytes(card, processes=processes),
        "llm weights": Estimate.exact(voxtral_weights_bytes(voxtral, dtype=llm_dtype)),
        "asr weights": Estimate.exact(whisper_weights_bytes(whisper, **tenants)),
    }
    second_copy = (
        whisper_load_peak_bytes(whisper, **tenants, path=load_path) - owners["asr weights"].expected
    )
    load = {**owners, "second copy": Estimate.exact(second_copy)}
    if load_order == "asr-first":  # Whisper's copy has gone before Voxtral comes
        del load["llm weights"]
        load = max(load, owners, key=lambda rows: total(list(rows.values())).expected)
    served = largest(
        [
            *whisper_phases(whisper, request, **tenants, card=card).values(),
            *voxtral_phases(
                voxtral, request, dtype=llm_dtype, card=card, attention=attention
            ).values(),
        ]
    )
    return PairPlan(
        card=card.name,
        llm_model=voxtral.name,
        llm_dtype=llm_dtype,
        asr_model=whisper.name,
        asr_backend=backend,
        asr_dtype=dtype,
        attention=attention,
        capacity=_capacity(card, capacity_bytes),
        host_bytes=max(
            whisper_host_bytes(whisper, **tenants, path=load_path),
            voxtral_host_bytes(voxtral, dtype=llm_dtype, path=load_path),
        ),
        ledger={
            "load_peak": load,
            "idle": owners,
            "request_peak": {
                **owners,
                "request": served,
                "allocator cache": allocator_cache_bytes(card, served),
            },
            "swap_peak": _swap_owners(owners, second_copy, served),
        },
    )


def _swap_owners(
    owners: dict[str, Estimate], second_copy: int, served: Estimate
) -> dict[str, Estimate]:
    """Whisper comes in beside a resident Voxtral that works at the same time (an overlapped swap):
    its second copy and Voxtral's request are there together."""
    return {**owners, "second copy": Estimate.exact(second_copy), "request": served}


def allocator_cache_bytes(card: Card, served: Estimate) -> Estimate:
    """What a caching allocator holds beside so many transient bytes without using it."""
    if card is catalog.HOST:  # no caching allocator
        return Estimate.exact(0)
    highest = int(SLACK_HIGHEST_SHARE * served.high) + SLACK_SEGMENT_BYTES
    return Estimate(0, SLACK_SEGMENT_BYTES, highest)


def _capacity(card: Card, measured: int | None) -> Estimate:
    if measured is not None:
        return Estimate.exact(measured)
    return Estimate(card.usable_bytes, card.usable_bytes, card.usable_bytes_max)


def plan_table(
    card: Card,
    *,
    voxtral: VoxtralModel | None = None,
    sizes: tuple[str, ...] = catalog.WHISPER_SIZES,
    llm_dtype: str | None = None,
    request: Request | None = None,
    capacity_bytes: int | None = None,
    attention: Attention = "auto",
    load_path: LoadPath = "direct",
) -> list[PairPlan]:
    """One plan for each size x backend x dtype that the card runs natively."""
    return [
        plan_pair(
            card,
            catalog.whisper(size),
            voxtral or catalog.voxtral("mini-3b"),
            backend=backend,
            dtype=dtype,
            llm_dtype=llm_dtype,
            request=request,
            capacity_bytes=capacity_bytes,
            attention=attention,
            load_path=load_path,
        )
        for size in sizes
        for backend, dtype in native_combinations(card)
    ]


def native_combinations(card: Card) -> Iterator[tuple[str, str]]:
    """Backends and the dtypes that they keep and the card computes in."""
    for backend in catalog.BACKENDS:
        for dtype in catalog.BACKEND_DTYPES[backend]:
            if dtype == "int8" or dtype in card.native_dtypes:
                yield backend, dtype
