"""GPUs and their limits."""

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
    def context_bytes(self) -> tuple[int, int, int]:
        """Driver context, loaded kernels and libraries of one process outside PyTorch's allocator:
        lowest, expected, highest. Turing: 0.11-0.16 GiB in public out-of-memory texts of T4s. Later
        chips load larger kernel images: 0.3-0.6 GiB, an assumption until measured on the card."""
        if self.compute_capability < (8, 0):
            return 113 * MIB, 144 * MIB, 164 * MIB
        return 300 * MIB, 450 * MIB, 600 * MIB


def gpu(
    name: str,
    title: str,
    nominal_mib: int,
    usable_gib: tuple[float, float],
    capability: tuple[int, int],
    memory_gb_per_s: float,
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
    )


#: nvidia-smi's MiB, GiB that CUDA reports (public PyTorch out-of-memory texts), compute capability
#: and the memory's GB/s (data sheets; A100 80 GB, H100: SXM modules; A10G: the A10's).
CARDS: Registry[Card] = Registry(
    "card",
    [
        gpu("t4", "NVIDIA T4", 15_360, (14.56, 14.76), (7, 5), 320),
        gpu("l4", "NVIDIA L4", 23_034, (22.03, 22.17), (8, 9), 300),
        gpu("a10g", "NVIDIA A10G", 23_028, (22.05, 22.20), (8, 6), 600),
        gpu("rtx-3060", "GeForce RTX 3060 12 GB", 12_288, (11.72, 11.76), (8, 6), 360),
        gpu("rtx-4090", "GeForce RTX 4090", 24_564, (23.64, 23.65), (8, 9), 1_008),
        gpu("a100-40", "NVIDIA A100 40 GB", 40_960, (39.38, 39.56), (8, 0), 1_555),
        gpu("a100-80", "NVIDIA A100 80 GB", 81_920, (79.14, 79.25), (8, 0), 2_039),
        gpu("h100", "NVIDIA H100 80 GB", 81_559, (79.10, 79.19), (9, 0), 3_350),
        gpu("h200", "NVIDIA H200 141 GB", 143_771, (139.72, 139.81), (9, 0), 4_800),
    ],
)

#: The CPU for formulae that ask a card: no driver context, no caching allocator, and its bytes are
#: read from the machine.
HOST = Card(
    name="cpu",
    title="this machine's CPU",
    nominal_bytes=0,
    usable_bytes=0,
    usable_bytes_max=0,
    compute_capability=(0, 0),
    memory_bandwidth=0.0,
)


def card(name: str) -> Card:
    """The card of that name; `ParameterError` lists the good names."""
    return CARDS[name.lower()]


def card_titled(title: str, total_bytes: int) -> Card | None:
    """The card that a driver calls so and that has about so many bytes, if the catalog knows it."""
    words = title.lower().replace("-", " ").split()
    for card in CARDS.values():
        key = card.name.split("-")
        same_name = all(part in words for part in key if not part.isdigit() or len(part) == 4)
        if same_name and abs(total_bytes - card.usable_bytes) < 0.1 * card.usable_bytes:
            return card
    return None
