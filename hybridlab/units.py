"""Units. Inside the lab everything is bytes and seconds; GiB and ms appear only in labels: memory
in GiB and MiB, as the driver tells it, downloads and disks in GB."""

from __future__ import annotations

from collections.abc import Sequence

KIB = 1024
MIB = 1024**2
GIB = 1024**3
GB = 10**9  # decimal, as vendors and model cards use it; never mixed with GiB in one sum

BYTES_PER_DTYPE: dict[str, float] = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "int8": 1.0,
    "int4": 0.5,
}


def gib(n_bytes: float) -> float:
    """Bytes as GiB (2**30)."""
    return n_bytes / GIB


def format_bytes(n_bytes: float) -> str:
    """A label: '8.71 GiB', '461 MiB', '12 KiB'; the sign is kept."""
    size = abs(n_bytes)
    if size >= GIB:
        return f"{n_bytes / GIB:.2f} GiB"
    if size >= MIB:
        return f"{n_bytes / MIB:.0f} MiB"
    if size >= KIB:
        return f"{n_bytes / KIB:.0f} KiB"
    return f"{n_bytes:.0f} B"


def format_alike(sizes: Sequence[float]) -> list[str]:
    """Labels that stand beside each other, all in the unit of the largest: '0.07 GiB'."""
    largest = max(map(abs, sizes), default=0.0)
    unit, digits = (GIB, 2) if largest >= GIB else (MIB, 0)
    name = "GiB" if unit == GIB else "MiB"
    return [f"{size / unit:.{digits}f} {name}" for size in sizes]


def format_decimal_bytes(n_bytes: float) -> str:
    """A label in powers of ten, as downloads and disks are told: '9.35 GB', '151 MB', '12 kB'."""
    for unit, size in (("GB", GB), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.2f} GB" if unit == "GB" else f"{n_bytes / size:.0f} {unit}"
    return f"{n_bytes:.0f} B"


def format_number(value: float) -> str:
    """Three digits, or all that stand before the point: never a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_percent(share: float, digits: int = 0, *, sign: str = "") -> str:
    """A share of one: '83 %'; with one digit '7.4 %'; with the sign '+' '+3.4 %'."""
    return f"{share * 100:{sign}.{digits}f} %"


def counted(count: int, noun: str) -> str:
    """'1 case', '2 cases'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_seconds_alike(times: Sequence[float]) -> list[str]:
    """Labels that stand beside each other, in the unit and with the decimals of the largest:
    '0.60 s' beside '1.03 s'."""
    largest = max(times, default=0.0)
    if largest >= 99.95:
        return [_minutes(seconds) for seconds in times]
    unit, scale = ("ms", 1e3) if largest < 0.9995 else ("s", 1.0)
    shown = largest * scale
    digits = 0 if shown >= 100 else 1 if shown >= 10 else 2
    return [f"{seconds * scale:.{digits}f} {unit}" for seconds in times]


def format_seconds(seconds: float) -> str:
    """A label: '85 ms', '2.4 s', '3 min 10 s'."""
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 99.95:
        return f"{format_number(seconds)} s"
    return _minutes(seconds)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
