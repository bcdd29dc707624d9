"""A simulated card as a device like any other: in parameters, the notebook and cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hybridlab import catalog
from hybridlab.cli.commands import app
from hybridlab.config.params import BesideParams
from hybridlab.config.preset_files import read_yaml
from hybridlab.devices import card_of, resolve_device
from hybridlab.errors import ParameterError
from hybridlab.experiments.session import Session
from hybridlab.processes.fork_server import ADDRESS_VARIABLE, CaseServer
from hybridlab.simulation import STATE_VARIABLE, evidence
from hybridlab.simulation.cuda_torch import CudaTorch

pytestmark = pytest.mark.skipif(
    STATE_VARIABLE in os.environ, reason="this process was started with a simulated card itself"
)


def run_with_card(*command: str) -> int:
    return CliRunner().invoke(app, ["simulate", *command]).exit_code


@pytest.mark.parametrize("name", list(catalog.CARDS))
def test_a_card_is_known_by_the_catalog(name: str) -> None:
    card, device = catalog.CARDS[name], resolve_device(f"simulated:{name}")
    assert device.capacity_bytes() == device.free_bytes() == card.usable_bytes
    assert device.native_dtypes() == card.native_dtypes
    assert card_of(device) is card
    assert evidence(device.name) == "simulated"
    assert (device.other_processes().value, device.used_bytes()) == (0.0, 0)


def test_the_notebooks_process_stays_as_it_is() -> None:
    code = (
        "import sys, hybridlab.simulation.values\n"
        "from hybridlab.devices import resolve_device\n"
        "assert resolve_device('simulated:t4').title() == 'NVIDIA T4 (simulated)'\n"
        "assert not {'torch', 'pynvml'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_is_said_in_one_line() -> None:
    with pytest.raises(ParameterError, match="unknown simulated card 't44'; did you mean 't4'"):
        BesideParams.from_mapping({"device": "simulated:t44"})
    with pytest.raises(ParameterError, match="set inline to false"):
        BesideParams.from_mapping({"device": "simulated:t4", "inline": True})


def test_a_server_is_borrowed_for_its_own_card_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "cases-t4"
    address.touch()
    monkeypatch.setenv(ADDRESS_VARIABLE, str(address))
    assert CaseServer("t4").address == str(address)
    assert CaseServer("l4").address == CaseServer().address == ""


def test_any_command_runs_on_a_card(cuda: CudaTorch, tmp_path: Path) -> None:
    code = (
        "import torch\n"
        "assert torch.cuda.get_device_capability() == (8, 9)\n"
        "assert torch.cuda.mem_get_info()[1] > 22 * 2**30\n"
        "raise SystemExit(7)\n"
    )
    assert run_with_card("--card", "l4", sys.executable, "-c", code) == 7


def test_a_command_that_is_not_there_is_said_in_one_line(cuda: CudaTorch) -> None:
    for command in (["nosuchcommand"], ["--bogus", "true"]):
        ended = CliRunner().invoke(app, ["simulate", *command])
        assert ended.exit_code == 2
        assert f"{command[0]!r} cannot be run" in ended.output
    ended = CliRunner().invoke(app, ["simulate"])
    assert ended.exit_code == 2
    assert "name a command to run, or --fetch" in ended.output


@pytest.mark.parametrize("name", ["t4", "l4"])
def test_the_preset_speaks_for_the_card_that_it_runs_on(name: str, tmp_path: Path) -> None:
    values = read_yaml(Path(__file__).parents[2] / "params" / "t4-simulated.yaml")
    values |= {"device": f"simulated:{name}", "output_dir": str(tmp_path), "headless": True}
    own = {key: value for key, value in values.items() if key in BesideParams.model_fields}
    session = Session.open(BesideParams.from_mapping(own))
    assert session.card == catalog.card(name)
    assert session.llm.card == ""
    assert session.case("co_residency").card_on(session.device) == catalog.card(name)
