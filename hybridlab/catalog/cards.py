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
    source: str

    @property
    def is_gpu(self) -> bool:
        return self.nominal_bytes > 0

    @property
    def native_dtypes(self) -> tuple[str, ...]:
        """Dtypes that it computes in by hardware: bfloat16 came with compute capability 8.0."""
        if not self.is_gpu:
            return ("float32", "bfloat16")
        if self.compute_capability < (8, 0):
            return ("float32", "float16")
        return ("float32", "bfloat16", "float16")

    @property
    def fused_gqa(self) -> bool:
        """Whether SDPA has a fused kernel for grouped-query attention; without one (compute
        capability 7.5) transformers' `enable_gqa` falls to the math kernel, which builds float32
        scores."""
        return not self.is_gpu or self.compute_capability >= (8, 0)

    @property
    def context_bytes(self) -> tuple[int, int, int]:
        """Driver context, loaded kernels and libraries of one process outside PyTorch's allocator:
        lowest, expected, highest. Turing: 0.11-0.16 GiB in public out-of-memory texts of T4s. Later
        chips load larger kernel images: 0.3-0.6 GiB, an assumption until measured on the card."""
        if self.compute_capability < (8, 0):
            return 113 * MIB, 144 * MIB, 164 * MIB
        return 300 * MIB, 450 * MIB, 600 * MIB


#: GB/s from host to device in pinned memory, and where the number is from.
_LINKS = {
    12.3: "PCIe 3 x16, measured",
    25: "PCIe 4 x16, typical",
    50: "PCIe 5 x16, typical",
}


def gpu(
    name: str,
    title: str,
    nominal_mib: int,
    usable_gib: tuple[float, float],
    capability: tuple[int, int],
    memory_gb_per_s: float,
    link_gb_per_s: float,
) -> Card:
    """A card by the numbers of its data sheet. `usable_gib`: lowest and highest 'total capacity' in
    public PyTorch out-of-memory texts."""
    lowest, highest = usable_gib
    return Card(
        name=name,
        title=title,
        nominal_bytes=nominal_mib * MIB,
        usable_bytes=int(lowest * GIB),
        usable_bytes_max=int(highest * GIB),
        compute_capability=capability,
        memory_bandwidth=memory_gb_per_s * 1e9,
        link_bandwidth=link_gb_per_s * 1e9,
        source=f"data sheet of {title}; usable: public PyTorch out-of-memory texts; link: "
        f"{_LINKS[link_gb_per_s]}",
    )


#: nvidia-smi's MiB, GiB that CUDA reports, compute capability, GB/s of the memory and of the link.
#: The memory of A100 80 GB and H100 is that of the SXM modules, that of the A10G the A10's.
CARDS: Registry[Card] = Registry(
    "card",
    [
        gpu("t4", "NVIDIA T4", 15_360, (14.56, 14.76), (7, 5), 320, 12.3),
        gpu("l4", "NVIDIA L4", 23_034, (22.03, 22.17), (8, 9), 300, 25),
        gpu("a10g", "NVIDIA A10G", 23_028, (22.05, 22.20), (8, 6), 600, 25),
        gpu("rtx-3060", "GeForce RTX 3060 12 GB", 12_288, (11.72, 11.76), (8, 6), 360, 25),
        gpu("rtx-4090", "GeForce RTX 4090", 24_564, (23.64, 23.65), (8, 9), 1_008, 25),
        gpu("a100-40", "NVIDIA A100 40 GB", 40_960, (39.38, 39.56), (8, 0), 1_555, 25),
        gpu("a100-80", "NVIDIA A100 80 GB", 81_920, (79.14, 79.25), (8, 0), 2_039, 25),
        gpu("h100", "NVIDIA H100 80 GB", 81_559, (79.10, 79.19), (9, 0), 3_350, 50),
        gpu("h200", "NVIDIA H200 141 GB", 143_771, (139.72, 139.81), (9, 0), 4_800, 50),
    ],
)

#: The CPU for formulae that ask a card: no driver context, no caching allocator.
HOST = Card(
    name="cpu",
    title="this machine's CPU",
    nominal_bytes=0,
    usable_bytes=0,
    usable_bytes_max=0,
    compute_capability=(0, 0),
    memory_bandwidth=0.0,
    link_bandwidth=0.0,
    source="not a card: its bytes are read from the machine",
)


def card(name: str) -> Card:
    """The card of that name; `ParameterError` lists the good names."""
    return CARDS[name.lower()]
