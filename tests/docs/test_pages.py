"""The guides name files, functions and options that are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hybridlab.cli.commands import app
from hybridlab.config import renamed
from tests.docs.pages import PAGES, PROJECT
from tools.serve_options import render

GUIDES = sorted((PROJECT / "docs" / "adding").glob("*.md"))

#: What a walk-through makes is not there before.
MADE = {
    "hybridlab/models/whisper_eager.py",
    "hybridlab/strategies/relay.py",
    "hybridlab/devices/half_host.py",
    "hybridlab/server/routes/limits.py",
} | {
    f"{folder}/my-experiment.{kind}"
    for folder, kind in (("notebooks", "ipynb"), ("params", "yaml"))
}


def named(page: Path, pattern: str) -> list[str]:
    return re.findall(pattern, page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in named(page, r"\]\(((?!https?:)[^)#]+)\)"):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_named_files_are_there(page: Path) -> None:
    paths = named(page, r"`((?:hybridlab|tests|params|notebooks|docs|benchmarks)/[\w/.-]+)`")
    for path in set(paths) - MADE:
        assert (PROJECT / path).exists(), path


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_walk_through_is_a_page_that_says_how_to_prove_and_see_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Add a {page.stem}\n")
    assert len(text.splitlines()) <= 50
    assert re.search(r"prove it: `.venv/bin/python -m pytest", text, re.IGNORECASE)
    assert "See it" in text
    (command,) = re.findall(r"-m pytest\s([^`]+)`", text)
    assert all((PROJECT / path).exists() for path in command.split())


def test_every_walk_through_is_linked_from_the_architecture_and_for_contributors() -> None:
    for page in ("docs/architecture.md", "CONTRIBUTING.md"):
        text = (PROJECT / page).read_text(encoding="utf-8")
        assert [guide.stem for guide in GUIDES if f"adding/{guide.name})" not in text] == []


def test_the_pages_use_the_present_words() -> None:
    """Old names stand in the changelog alone."""
    old = [name for name in (*renamed.PARAMETERS, *renamed.COLUMNS) if "_" in name]
    for page in [page for page in PAGES if page.name not in ("CHANGELOG.md", "columns.md")]:
        text = page.read_text(encoding="utf-8")
        assert [name for name in old if re.search(rf"`{name}`", text)] == [], page
        if page.name != "README.md":
            assert not re.search(r"\b(tenants?|gateway|envelope|foretold)\b", text), page


@pytest.mark.parametrize(
    "name",
    [
        "catalog.CARDS", "catalog.WHISPERS", "catalog.VOXTRALS", "catalog.BACKENDS",
        "catalog.strategies.register", "catalog.backends.Backend", "catalog.strategies.Variant",
        "planner.weights.whisper_load_peak_bytes", "planner.per_strategy.LEDGERS",
        "experiments.placement.PLACES", "models.base.SpeechRecognizer",
        "experiments.plans.strategy_comparison.Arm", "experiments.session.Session",
    ],
)  # fmt: skip
def test_what_the_walk_throughs_change_has_that_name(name: str) -> None:
    module, _, attribute = f"hybridlab.{name}".rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert attribute in pages


SERVING = PROJECT / "docs" / "serving.md"


def test_the_page_on_serving_says_what_the_help_of_the_command_says() -> None:
    text = SERVING.read_text(encoding="utf-8")
    table = text.partition("<!-- begin options -->")[2].partition("<!-- end options -->")[0]
    rows = re.findall(r"^\| `(--[\w-]+)` \| (.*?) \| (.+) \|$", table, re.MULTILINE)
    wide = {"terminal_width": 1000, "max_content_width": 1000}
    said = CliRunner().invoke(app, ["serve", "--help"], **wide).output  # type: ignore[arg-type]
    options = re.findall(
        r"^  (--[\w-]+) +<\w+>\s+(.+?)(?:  \[default: (.+)\])?$", said, re.MULTILINE
    )
    assert [name for name, *_ in rows] == [name for name, *_ in options]
    assert len(rows) > 30
    for (name, default, told), (_, text, shown) in zip(rows, options, strict=True):
        assert told == text, name
        assert _value(default.strip("`")) == _value(shown), name


def test_the_page_on_serving_says_of_each_field_what_the_schemas_say() -> None:
    text = SERVING.read_text(encoding="utf-8")
    assert render(text) == text


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def test_the_page_on_serving_has_every_code_with_its_status() -> None:
    sources = sorted((PROJECT / "hybridlab" / "server").rglob("*.py"))
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    made = set(re.findall(r'ApiError\(\s*(\d{3}),\s*"(\w+)"', code))
    rows = named(SERVING, r"(?m)^\| (\d{3}) \| ([^|]+) \|")
    told = {(status, name) for status, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert len(made) > 12
    assert made <= told
    names = {name for _, name in told}
    assert set(re.findall(r'code="(\w+)"', code)) <= names
    assert names <= set(re.findall(r'"([a-z_]+)"', code))
