"""Who has how many of the cores, and when."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import nn

from hybridlab.devices import CpuDevice
from hybridlab.devices.cores import PLACES, Cores, SharedBoard, board_at
from hybridlab.errors import UnavailableError, WorkerLostError
from hybridlab.models import TenantSpec, phases
from hybridlab.models.phases import PhaseProbe
from hybridlab.models.remote import Hosting, RemoteTranscriber
from hybridlab.processes.isolate import CaseServer
from hybridlab.processes.workers import Worker
from tests.strategies.test_strategies import FakeWhisper
from tests.workers_at_work import alive, at_work_at_two_places, wait_until


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


def test_servers_meet_on_a_board_by_its_name(tmp_path: Path) -> None:
    """Each makes the board if it is the first, and leaves it to the others."""
    path = tmp_path / "cores"
    one, other = SharedBoard(path), SharedBoard(path)
    places = one.take_place(), other.take_place()
    assert places == (0, 1)
    busy = Cores(board_at(path), place=places[1])
    cores = Cores(board_at(path), place=places[0])
    with cores.at_work(), busy.at_work():
        cores.take_share()
        assert torch.get_num_threads() == 2
    for board in (one, other):
        board.close()
    assert path.stat().st_size == PLACES


def test_the_places_of_a_server_that_was_killed_are_free_and_nobody_is_at_work_there(
    tmp_path: Path, case_server: CaseServer
) -> None:
    path = tmp_path / "cores"
    with closing(SharedBoard(path)) as mine, Worker("another server") as other:
        board = board_at(path)
        board[mine.take_place()] = 1  # at work all the while
        pid = other.call(os.getpid)
        assert other.call(at_work_at_two_places, path) == [1, 2]
        assert list(board[:4]) == [1, 1, 1, 0]
        with closing(SharedBoard(path)) as third:
            assert third.take_place() == 3
        other.kill()
        assert wait_until(lambda: not alive(pid))
        with closing(SharedBoard(path)) as third:
            assert third.take_place() == 1
            assert list(board[:4]) == [1, 0, 0, 0]


def test_a_board_without_a_free_place_says_what_to_do(tmp_path: Path) -> None:
    boards = SharedBoard(tmp_path / "cores"), SharedBoard(tmp_path / "cores")
    taken = [boards[place % 2].take_place() for place in range(PLACES)]
    assert taken == list(range(PLACES))
    with pytest.raises(UnavailableError, match=r"all 16 places .* are taken; name another file"):
        boards[0].take_place()
    boards[1].close()
    assert boards[0].take_place() == 1
    boards[0].close()


def test_what_can_be_no_board_is_said_and_left_as_it_is(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("not a board, but something of somebody's")
    with pytest.raises(UnavailableError, match="is no board of cores"):
        SharedBoard(notes)
    assert notes.read_text().startswith("not a board")
    with pytest.raises(UnavailableError, match="cannot be written"):
        SharedBoard(tmp_path / "nowhere" / "cores")


class Lost(Worker):
    """A worker that is killed while its tenant computes."""

    def start(self) -> Worker:
        return self

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        if function is os.getpid:
            return os.getpid()
        if isinstance(arguments[0], Hosting):
            self.hosting = arguments[0]
            return None
        assert self.hosting.board is not None
        board_at(self.hosting.board)[self.hosting.place] = 1
        raise WorkerLostError("killed")


def test_a_worker_that_is_lost_is_not_at_work_any_more() -> None:
    board = SharedBoard()
    spec = TenantSpec(model="pocket-s", backend="openai-whisper", weights="pocket", dtype="float32")
    tenant = RemoteTranscriber(spec, CpuDevice(), Lost("whisper"), board=board)
    with pytest.raises(WorkerLostError):
        tenant.load()
    assert sum(board_at(board.path)) == 0
    board.close()


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
