"""Who has how many of the cores, and when."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn

from hybridlab.device import CpuDevice
from hybridlab.device.cores import Cores, SharedBoard, board_at
from hybridlab.tenants import phases
from hybridlab.tenants.phases import PhaseProbe
from tests.strategies.test_strategies import FakeWhisper


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_alone_all_of_them_two_half_each_and_all_again_for_who_is_left() -> None:
    cores, both, one_left = Cores(), Barrier(2), Barrier(2)

    def short() -> int:
        with cores.at_work():
            both.wait()
            cores.take_share()
            seen = torch.get_num_threads()
        one_left.wait()
        return seen

    with cores.at_work():
        assert torch.get_num_threads() == 4
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(short)
            both.wait()
            cores.take_share()
            assert torch.get_num_threads() == 2
            one_left.wait()
            cores.take_share()
            assert torch.get_num_threads() == 4
            assert other.result() == 2


def test_more_at_work_than_cores_have_one_each() -> None:
    cores = Cores()
    works = [cores.at_work() for _ in range(6)]
    for work in works:
        work.__enter__()
    assert torch.get_num_threads() == 1
    for work in works:
        work.__exit__(None, None, None)
    assert torch.get_num_threads() == 4


def test_a_fault_at_work_gives_the_share_back() -> None:
    cores = Cores()
    with pytest.raises(ZeroDivisionError), cores.at_work(), cores.at_work():
        _ = 1 / 0
    with cores.at_work():
        assert torch.get_num_threads() == 4


def test_processes_share_by_a_board_and_a_dead_one_is_cleared() -> None:
    board = SharedBoard()
    mine, other = board.take_place(), board.take_place()
    seen_by_other = board_at(board.path)
    cores = Cores(board_at(board.path), place=mine)
    seen_by_other[other] = 1  # at work, in its own process
    with cores.at_work():
        assert list(seen_by_other[:2]) == [1, 1]
        assert torch.get_num_threads() == 2
        board.clear(other)  # killed in the middle of it
        cores.take_share()
        assert torch.get_num_threads() == 4
    board.close()
    assert not board.path.exists()


def test_a_tenant_takes_its_share_anew_at_every_layer() -> None:
    """The other one may come in the middle of an encoder pass."""

    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            if len(seen) == 1:
                device.cores._count(1)
            return x

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Layer(), Layer()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    seen: list[int] = []
    tenant = FakeWhisper([])
    device = tenant.device
    assert isinstance(device, CpuDevice)
    encoder = Encoder()
    probe = PhaseProbe(tenant, encoder=encoder, decoder=nn.Module())
    with probe.call():
        encoder(torch.zeros(1))
    assert seen == [4, 2]
    device.cores._count(-1)
    assert phases._blocks(encoder).__next__() is encoder.layers[0]
