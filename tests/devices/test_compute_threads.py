"""How many threads a model computes with, alone and beside another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from hybridlab.devices import CpuDevice
from hybridlab.models.phase_hooks import PhaseProbe
from hybridlab.strategies import make_strategy
from tests.strategies.test_strategies import FakeVoxtral, FakeWhisper


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("models", "threads"), [(1, 4), (2, 2), (6, 1)])
def test_models_that_compute_at_once_divide_the_cores(models: int, threads: int) -> None:
    device, both = CpuDevice(), Barrier(2)
    device.concurrent_models = models

    def compute() -> int:
        torch.set_num_threads(4)  # torch keeps it for each thread
        with device.compute_slot():
            both.wait()
            return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        seen = [future.result() for future in [pool.submit(compute), pool.submit(compute)]]
    assert seen == [threads] * 2


def test_all_cores_are_back_after_a_fault() -> None:
    device = CpuDevice()
    device.concurrent_models = 2
    with pytest.raises(ZeroDivisionError), device.compute_slot():
        _ = 1 / 0
    assert torch.get_num_threads() == 4


def test_a_model_call_takes_its_share() -> None:
    class Encoder(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return x

    seen: list[int] = []
    model, encoder = FakeWhisper([]), Encoder()
    model.device.concurrent_models = 2
    probe = PhaseProbe(model, encoder=encoder, decoder=torch.nn.Module())
    with probe.call():
        encoder(torch.zeros(1))
    assert seen == [2]


@pytest.mark.parametrize(
    ("strategy", "variant", "models"),
    [("sequential", "plain", 1), ("parallel", "threads", 2), ("pipelined", "prefetch", 2)],
)
def test_a_strategy_that_computes_with_both_at_once_halves_the_cores(
    strategy: str, variant: str, models: int
) -> None:
    device, pair = CpuDevice(), (FakeWhisper([]), FakeVoxtral([]))
    for model in pair:
        model.device = device
    made = make_strategy(strategy, variant, asr=pair[0], llm=pair[1])
    made.open()
    assert device.concurrent_models == models
    made.close()
    assert device.concurrent_models == 1
