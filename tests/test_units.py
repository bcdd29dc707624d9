"""Labels that stand beside each other have one unit and as many decimals."""

from __future__ import annotations

import pytest

from hybridlab.units import GIB, MIB, format_alike, format_seconds_alike


@pytest.mark.parametrize(
    ("sizes", "labels"),
    [
        ([72 * MIB, 2.5 * GIB], ["0.07 GiB", "2.50 GiB"]),
        ([72 * MIB, 298 * MIB], ["72 MiB", "298 MiB"]),
        ([-617 * MIB, 14.1 * GIB], ["-0.60 GiB", "14.10 GiB"]),
        ([], []),
    ],
)
def test_sizes(sizes: list[float], labels: list[str]) -> None:
    assert format_alike(sizes) == labels


@pytest.mark.parametrize(
    ("times", "labels"),
    [
        ([0.786, 0.599, 1.03], ["0.79 s", "0.60 s", "1.03 s"]),
        ([0.0645, 0.0633, 0.0688], ["64.5 ms", "63.3 ms", "68.8 ms"]),
        ([0.5, 0.999], ["500 ms", "999 ms"]),
        ([30.0, 190.0], ["0 min 30 s", "3 min 10 s"]),
    ],
)
def test_times(times: list[float], labels: list[str]) -> None:
    assert format_seconds_alike(times) == labels
