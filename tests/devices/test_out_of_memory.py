from __future__ import annotations

import resource

import pytest

from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.units import GIB, MIB

CUDA = (
    "CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a total capacity of 14.56 GiB of "
    "which 1.02 GiB is free.\nMore advice"
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 157286400 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("text", "requested"),
    [
        (CUDA, round(1.70 * GIB)),
        (CPU, 150 * MIB),
        ("std::bad_alloc", None),
        ("could not create a memory object", None),
        ("could not create a primitive", None),
    ],
)
def test_the_words_of_each_allocator(text: str, requested: int | None) -> None:
    failure = out_of_memory(RuntimeError(text))
    assert failure is not None
    assert failure.requested_bytes == requested
    assert "\n" not in failure.message


def test_other_faults_are_not_out_of_memory() -> None:
    assert out_of_memory(RuntimeError("shape mismatch")) is None
    failure = out_of_memory(MemoryError())
    assert failure is not None
    assert failure.message == "out of memory (MemoryError)"


def test_a_wrapped_failure_is_found() -> None:
    try:
        try:
            raise MemoryError("Unable to allocate 1.83 MiB for an array")
        except MemoryError as inner:
            raise ValueError("cannot convert this") from inner
    except ValueError as error:
        failure = out_of_memory(error)
    assert failure is not None
    assert failure.message.startswith("Unable to allocate")


@pytest.mark.parametrize(
    "text", ["error return without exception set", "<f> returned NULL without setting an exception"]
)
def test_a_failure_without_a_word_is_one_of_memory_only_where_that_is_limited(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert out_of_memory(SystemError(text)) is None
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**30, 2**30))
    failure = out_of_memory(SystemError(text))
    assert failure is not None
    assert failure.message == text
    assert out_of_memory(RuntimeError(text)) is None
