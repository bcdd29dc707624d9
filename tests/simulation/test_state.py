from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridlab import catalog
from hybridlab.errors import ParameterError
from hybridlab.simulation import state
from hybridlab.units import MIB


def test_every_card_of_the_catalog_can_be_simulated(tmp_path: Path) -> None:
    for name, card in catalog.CARDS.items():
        state.create(tmp_path / name, [name])
        (simulated,) = state.read(tmp_path / name)
        assert simulated.total_bytes == card.nominal_bytes
        assert 0 <= card.usable_bytes - simulated.usable_bytes < 64 * 1024
        assert simulated.context_bytes > 100 * MIB
        assert simulated.activity == state.Activity(0, 0, 0, 0)


def test_a_card_without_a_chip_says_where_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(state.CHIPS, "t4")
    with pytest.raises(ParameterError, match=r"card 't4' .* CHIPS of hybridlab/simulation/state"):
        state.create(tmp_path / "card", ["t4"])


def test_cards_have_addresses_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "card"
    state.create(path, ["t4", "t4", "l4"])
    cards = state.read(path)
    assert len({card.uuid for card in cards}) == 3
    assert [card.pci_bus_id for card in cards] == sorted({card.pci_bus_id for card in cards})


def test_a_stranger_holds_memory_while_it_lives(
    tmp_path: Path, other: Callable[[], subprocess.Popen[bytes]]
) -> None:
    path = tmp_path / "card"
    state.create(path, ["t4"])
    stranger = other()
    state.inject(path, pid=stranger.pid, n_bytes=5 * MIB)
    state.inject(path, pid=stranger.pid, n_bytes=7 * MIB)
    assert state.users(path) == [state.User(stranger.pid, 0, 0, 7 * MIB, 0)]
    assert state.used_bytes(path) == 7 * MIB
    stranger.kill()  # a zombie until it is waited for, and holds nothing already
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)
    assert state.users(path) == []


def test_a_recycled_pid_inherits_nothing(tmp_path: Path) -> None:
    path = tmp_path / "card"
    state.create(path, ["t4"])
    state.inject(path, pid=os.getpid(), n_bytes=MIB)
    data = bytearray(path.read_bytes())
    at = data.index(os.getpid().to_bytes(4, "little"), state._USERS_AT)
    data[at + 8] ^= 1  # as if another process of that id had started at another time
    path.write_bytes(data)
    assert state.users(path) == []


def test_wrong_states_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="unknown card"):
        state.create(tmp_path / "card", ["t5"])
    with pytest.raises(ParameterError, match="simulate 1 to 8"):
        state.create(tmp_path / "card", [])
    (tmp_path / "card").write_bytes(b"something else")
    with pytest.raises(ParameterError, match="not the state"):
        state.read(tmp_path / "card")
    state.create(tmp_path / "card", ["t4"])
    with pytest.raises(ParameterError, match="only a living one"):
        state.inject(tmp_path / "card", pid=2**22 + 1, n_bytes=1)
