"""Commands and messages that the pages quote are the program's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from jupyter_client.kernelspec import NoSuchKernel

from hybridlab.cli.app import join_overrides
from hybridlab.cli.commands import app
from hybridlab.config.params import NOTEBOOKS, all_parameter_names, parse_override, split
from hybridlab.config.preset_files import NONE, parameter_file, read_yaml
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import ParameterError
from hybridlab.units import GIB
from tests.docs.pages import PAGES, PROJECT, commands, is_said, messages, source_texts

TROUBLE = PROJECT / "docs" / "troubleshooting.md"
GROUP = typer.main.get_command(app)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_understood(page: Path) -> None:
    for words in commands(page, "hybridlab"):
        name, *arguments = join_overrides(words) or [""]
        if not name or name.startswith("-"):
            continue
        command = GROUP.commands[name]  # type: ignore[attr-defined]
        if not arguments:  # the command's name alone
            continue
        context = command.make_context(name, list(arguments))
        if name == "run":
            _check_parameters(context.params)


def _check_parameters(given: dict[str, object]) -> None:
    """The values of `run` are those of its file's notebooks."""
    named = str(given["params"])
    path = PROJECT / named if "/" in named else parameter_file(named)
    if path.stem == "my-experiment":  # made by a walk-through
        return
    values = {"preset": NONE, **read_yaml(path)}
    for item in given["p"] or []:  # type: ignore[attr-defined]
        name, _, text = item.partition("=")
        assert name in all_parameter_names(), name
        # the reader's own audio is not here
        values[name] = "" if name == "audio" else parse_override(name, text)
    assert split(values, NOTEBOOKS.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_target_of_make_is_there(page: Path) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    assert {words[0] for words in commands(page, "make") if words} <= targets


#: Messages that are put together, or another program's, as they come from there.
MADE = {
    "CUDA out of memory. Tried to allocate": "CUDA out of memory. Tried to allocate 2.00 GiB.",
    "No such kernel named python3": str(NoSuchKernel("python3")),
    "unknown parameter …; did you mean …?": str(
        ParameterError.unknown_name("parameter", "trails", ["trials"])
    ),
}


@pytest.mark.parametrize("message", messages(TROUBLE))
def test_every_message_is_one_that_the_program_prints(message: str) -> None:
    assert is_said(message, [MADE[message]] if message in MADE else source_texts())


def test_what_torch_says_is_recognised_as_out_of_memory() -> None:
    found = out_of_memory(RuntimeError(MADE["CUDA out of memory. Tried to allocate"]))
    assert found is not None and found.requested_bytes == 2 * GIB


def test_a_message_that_no_code_prints_is_noticed() -> None:
    assert len(messages(TROUBLE)) > 20
    assert is_said("the simulated card needs … C compiler", source_texts())
    assert not is_said("the simulated card needs … Fortran compiler", source_texts())
