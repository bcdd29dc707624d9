"""The ladder with tenants that run out of memory when they are told to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hybridlab.errors import UnavailableError
from hybridlab.strategies import Request
from hybridlab.strategies.ladder import Ladder
from hybridlab.tenants.base import TenantSpec

OOM = "CUDA out of memory. Tried to allocate 2.00 GiB."


def rungs(*sizes: str) -> list[TenantSpec]:
    return [
        TenantSpec(model=size, backend="transformers", weights="random", dtype="float16")
        for size in sizes
    ]


class Pair:
    """Fails while loading or while serving, by size."""

    def __init__(self, size: str, fails: dict[str, str], log: list[str]) -> None:
        self.size, self.fails, self.log = size, fails, log

    def open(self) -> None:
        if self.fails.get(self.size) == "load":
            raise RuntimeError(OOM)

    def serve(self, request: Request) -> Any:
        if self.fails.get(self.size) == request.id:
            raise RuntimeError(OOM)
        return f"{request.id} by {self.size}"

    def close(self) -> None:
        self.log.append(f"closed {self.size}")


def request(name: str) -> Request:
    return Request(id=name, samples=np.zeros(1, np.float32), question="?")


def ladder(fails: dict[str, str], log: list[str], *sizes: str) -> Ladder:
    return Ladder(lambda spec: Pair(spec.model, fails, log), rungs(*sizes))  # type: ignore[arg-type]


def test_steps_down_while_loading_and_while_serving_and_loses_nothing() -> None:
    log: list[str] = []
    found = ladder({"large-v3": "load", "medium": "b"}, log, "large-v3", "medium", "base")
    found.open()
    served = [str(found.serve(request(name))) for name in "abc"]
    assert served == ["a by medium", "b by base", "c by base"]
    assert [(step.left, step.taken, step.when) for step in found.steps] == [
        ("large-v3", "medium", "load"),
        ("medium", "base", "b"),
    ]
    assert found.steps[0].failure.requested_bytes == 2 * 2**30
    assert log == ["closed large-v3", "closed medium"]


def test_says_so_when_not_even_the_smallest_fits() -> None:
    found = ladder({"base": "load"}, [], "base")
    with pytest.raises(UnavailableError, match="not even base fits"):
        found.open()
    assert found.steps[-1].taken is None


def test_other_faults_pass_through() -> None:
    class Broken(Pair):
        def open(self) -> None:
            raise RuntimeError("shape mismatch")

    found = Ladder(lambda spec: Broken(spec.model, {}, []), rungs("base", "tiny"))  # type: ignore[arg-type,return-value]
    with pytest.raises(RuntimeError, match="shape mismatch"):
        found.open()
    assert found.steps == []
