"""A number of bytes with its range: an estimate is honest about what it does not know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """Bytes as `low <= expected <= high`; equal where a formula is exact."""

    low: int
    expected: int
    high: int

    def __post_init__(self) -> None:
        if not self.low <= self.expected <= self.high:
            raise ValueError(f"an estimate must be ordered: {self.low, self.expected, self.high}")

    @classmethod
    def exact(cls, n_bytes: float) -> Estimate:
        return cls(int(n_bytes), int(n_bytes), int(n_bytes))

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.low + other.low, self.expected + other.expected, self.high + other.high
        )

    def __mul__(self, count: int) -> Estimate:
        return Estimate(self.low * count, self.expected * count, self.high * count)


ZERO = Estimate.exact(0)


def total(parts: list[Estimate]) -> Estimate:
    """The sum of parts that are there together; their ranges add up."""
    found = ZERO
    for part in parts:
        found = found + part
    return found


def largest(parts: list[Estimate]) -> Estimate:
    """The larger of things that are there at different times, bound by bound."""
    return Estimate(
        max(part.low for part in parts),
        max(part.expected for part in parts),
        max(part.high for part in parts),
    )
