"""GPUs and their limits, each number with its source."""

from __future__ import annotations

from dataclasses import dataclass

from hybridlab.catalog.registry import Registry
from hybridlab.units import GIB, MIB


@dataclass(frozen=True, kw_only=True)
class Card:
    """A kind of GPU.

    `usable_bytes` is what CUDA reports as the device's total, which depends on the driver: the
    smallest and largest value seen in public are both kept. The lab reads the real value where the
    card is present and never types it.
    """

    name: str
    title: str
    nominal_bytes: int  # nvidia-smi's total
    usable_bytes: int
    usable_bytes_max: int
    compute_capability: tuple[int, int]
    memory_bandwidth: float  # bytes/s, nominal
    link_bandwidth: float  # bytes/s, host to device, pinned; measured where known
    native_dtypes: tuple[str, ...]
    source: str
    #: Whether SDPA has a fused kernel for grouped-query attention; without one (compute capability
    #: 7.5) transformers' `enable_gqa` falls to the math kernel, which builds float32 scores.
    fused_gqa: bool = True

    @property
    def context_bytes(self) -> tuple[int, int, int]:
        """Driver context, loaded kernels and libraries of one process outside PyTorch's allocator:
        lowest, expected, highest. Turing: 0.11-0.16 GiB in public out-of-memory texts of T4s. Later
        chips load larger kernel images: 0.3-0.6 GiB, an assumption until measured on the card."""
        if self.compute_capability < (8, 0):
            return 113 * MIB, 144 * MIB, 164 * MIB
        return 300 * MIB, 450 * MIB, 600 * MIB


_TURING = ("float32", "float16")
_AMPERE = ("float32", "bfloat16", "float16")
_OOM = "usable: 'total capacity' in public PyTorch out-of-memory texts"

CARDS: Registry[Card] = Registry(
    "card",
    [
        Card(
            name="t4",
            title="NVIDIA T4",
            nominal_bytes=15_360 * MIB,
            usable_bytes=int(14.56 * GIB),
            usable_bytes_max=int(14.76 * GIB),
            compute_capability=(7, 5),
            memory_bandwidth=320e9,
            link_bandwidth=12.3e9,
            native_dtypes=_TURING,
            fused_gqa=False,
            source=f"NVIDIA T4 data sheet; {_OOM} (14.56-14.76 GiB); link: measured H2D pinned",
        ),
        Card(
            name="l4",
            title="NVIDIA L4",
            nominal_bytes=23_034 * MIB,
            usable_bytes=int(22.03 * GIB),
            usable_bytes_max=int(22.17 * GIB),
            compute_capability=(8, 9),
            memory_bandwidth=300e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA L4 data sheet; {_OOM} (22.03-22.17 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="a10g",
            title="NVIDIA A10G",
            nominal_bytes=23_028 * MIB,
            usable_bytes=int(22.05 * GIB),
            usable_bytes_max=int(22.20 * GIB),
            compute_capability=(8, 6),
            memory_bandwidth=600e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA A10 data sheet; {_OOM} (22.05-22.20 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="rtx-3060",
            title="GeForce RTX 3060 12 GB",
            nominal_bytes=12_288 * MIB,
            usable_bytes=int(11.72 * GIB),
            usable_bytes_max=int(11.76 * GIB),
            compute_capability=(8, 6),
            memory_bandwidth=360e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"GeForce specifications; {_OOM} (11.72-11.76 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="rtx-4090",
            title="GeForce RTX 4090",
            nominal_bytes=24_564 * MIB,
            usable_bytes=int(23.64 * GIB),
            usable_bytes_max=int(23.65 * GIB),
            compute_capability=(8, 9),
            memory_bandwidth=1_008e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"GeForce specifications; {_OOM} (23.64 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="a100-40",
            title="NVIDIA A100 40 GB",
            nominal_bytes=40_960 * MIB,
            usable_bytes=int(39.38 * GIB),
            usable_bytes_max=int(39.56 * GIB),
            compute_capability=(8, 0),
            memory_bandwidth=1_555e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA A100 data sheet; {_OOM} (39.38-39.56 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="a100-80",
            title="NVIDIA A100 80 GB",
            nominal_bytes=81_920 * MIB,
            usable_bytes=int(79.14 * GIB),
            usable_bytes_max=int(79.25 * GIB),
            compute_capability=(8, 0),
            memory_bandwidth=2_039e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA A100 data sheet (SXM); {_OOM} (79.14-79.25 GiB); link: PCIe 4 x16",
        ),
        Card(
            name="h100",
            title="NVIDIA H100 80 GB",
            nominal_bytes=81_559 * MIB,
            usable_bytes=int(79.10 * GIB),
            usable_bytes_max=int(79.19 * GIB),
            compute_capability=(9, 0),
            memory_bandwidth=3_350e9,
            link_bandwidth=50e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA H100 data sheet (SXM); {_OOM} (79.10-79.19 GiB); link: PCIe 5 x16",
        ),
        Card(
            name="h200",
            title="NVIDIA H200 141 GB",
            nominal_bytes=143_771 * MIB,
            usable_bytes=int(139.72 * GIB),
            usable_bytes_max=int(139.81 * GIB),
            compute_capability=(9, 0),
            memory_bandwidth=4_800e9,
            link_bandwidth=50e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA H200 data sheet; {_OOM} (139.72-139.81 GiB); link: PCIe 5 x16, typical",
        ),
    ],
)


#: The CPU for formulae that ask a card: computes in the dtype that it keeps, has no driver context.
HOST = Card(
    name="cpu",
    title="this machine's CPU",
    nominal_bytes=0,
    usable_bytes=0,
    usable_bytes_max=0,
    compute_capability=(0, 0),
    memory_bandwidth=0.0,
    link_bandwidth=0.0,
    native_dtypes=("float32", "bfloat16"),
    source="not a card: its bytes are read from the machine",
)


def card(name: str) -> Card:
    """The card of that name; `ParameterError` lists the good names."""
    return CARDS[name.lower()]
