"""The changelog's renames are those that the program answers with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hybridlab.cli.serve import RENAMED
from hybridlab.config import renamed
from hybridlab.results.schema import TABLES, columns

KINDS = {
    "parameter": renamed.PARAMETERS,
    "variant": renamed.VALUES["variant"],
    "option": RENAMED,
}


def rows(project: Path) -> list[tuple[str, str, str]]:
    text = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (\w+?)s? (`.+`) \| (`.+`) \|$", text, re.MULTILINE)
    return [
        (kind, old, new)
        for kind, olds, news in found
        for old, new in zip(*(re.findall(r"`([^`]+)`", s) for s in (olds, news)), strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_rename_is_known_to_the_program(project: Path, kind: str) -> None:
    told = {old: new for named, old, new in rows(project) if named == kind}
    assert told
    assert told.items() <= KINDS[kind].items()


def test_renamed_columns_are_in_the_schema_and_their_old_names_are_not(project: Path) -> None:
    told = {old: new for named, old, new in rows(project) if named == "column"}
    known = {name for table in TABLES for name in columns(table)}
    assert told
    assert set(told.values()) <= known
    assert not set(told) & known
