"""What docs/serving.md and /openapi.json promise, sentence by sentence, and the tests that
promises.yaml names for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from hybridlab.server.app import Api, create_app
from hybridlab.server.engine import Engine
from hybridlab.server.schemas.requests import ChatBody, HybridForm, TranscriptionForm
from hybridlab.server.settings import Settings

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "serving.md"
TABLE = Path(__file__).with_name("promises.yaml")
#: Generated tables whose rows are descriptions of a schema's properties: each is told once.
SCHEMAS = {
    "transcription fields": TranscriptionForm.__name__,
    "chat fields": ChatBody.__name__,
    "hybrid fields": HybridForm.__name__,
}
UNLESS = re.compile(r"(.*) \((unless it is .*)\)")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


# ------------------------------------------------------------------------- docs/serving.md


def of_page(text: str) -> Iterator[str]:
    """Sentences of paragraphs and items, rows of tables, lines of examples. Titles and the heads of
    tables promise nothing."""
    section, place, cells = "", "", list[str]()
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "html_block" and (mark := re.match(r"<!-- begin (.+) -->", token.content)):
            section = mark[1]
        elif token.type == "fence":
            yield from token.content.splitlines()
        elif token.type == "tr_close" and cells:
            yield from of_row(section, cells)
            cells = []
        elif token.type == "table_close":
            section = ""
        elif token.type.endswith("_open"):
            place = token.type
        elif token.type == "inline" and place == "paragraph_open":
            yield from sentences(shown(token))
        elif token.type == "inline" and place == "td_open":
            cells.append(shown(token))


def shown(inline: Token) -> str:
    """Its text without marks and breaks of lines; of a link its own."""
    words = (" " if one.type == "softbreak" else one.content for one in inline.children or ())
    return "".join(words)


def sentences(text: str) -> list[str]:
    return SENTENCE_END.split(text.strip())


def of_row(section: str, cells: Sequence[str]) -> Iterator[str]:
    """One promise; of a field what the description of its schema says, and what is no refusal."""
    if section not in SCHEMAS:
        yield " | ".join(cells)
        return
    name, state, text = cells
    of = f"{SCHEMAS[section]}.{name}"
    unless = UNLESS.fullmatch(text)
    text, *more = unless.groups() if unless else (text,)
    yield f"{of}: {'refused: ' if state == 'refused' else ''}{text}"
    yield from (f"{of}: {one}" for one in more)


# --------------------------------------------------------------------------- /openapi.json


def of_openapi(page: dict[str, Any]) -> Iterator[str]:
    """Summaries and descriptions, each behind what it is of: a route, a status with its headers, a
    schema, a property of one."""
    for path, route in page["paths"].items():
        for method, operation in route.items():
            yield from _of_route(f"{method.upper()} {path}", operation)
    for name, schema in page["components"]["schemas"].items():
        yield from _sentences_of(name, schema)
        for own, told in schema.get("properties", {}).items():
            if "description" in told:
                yield f"{name}.{own}: {told['description']}"


def _of_route(route: str, operation: dict[str, Any]) -> Iterator[str]:
    """What an error is, is the same wherever it may come."""
    yield f"{route}: {operation['summary']}"
    yield from _sentences_of(route, operation)
    for status, response in operation["responses"].items():
        yield from _sentences_of(f"{route} {status}" if status == "200" else status, response)
        for header, told in response.get("headers", {}).items():
            if "description" in told:
                yield f"{status} {header}: {told['description']}"


def _sentences_of(name: str, told: dict[str, Any]) -> Iterator[str]:
    text = " ".join(told.get("description", "").split())
    yield from (f"{name}: {one}" for one in sentences(text) if one)


def described() -> dict[str, Any]:
    app = create_app(Engine(Settings())).app
    assert isinstance(app, Api)
    return app.openapi()


# ------------------------------------------------------------------------- what runs them


@dataclass(frozen=True, kw_only=True)
class Promise:
    """An entry of the table: sentences, and one of what runs them, why nothing here does, and why
    there is nothing to run."""

    says: list[str]
    run_by: list[str] = field(default_factory=list)
    not_here: str = ""
    promises_nothing: str = ""


@cache
def promises() -> list[Promise]:
    return [Promise(**entry) for entry in yaml.safe_load(TABLE.read_text(encoding="utf-8"))]


def lacks_of(name: str) -> str:
    """Why a test, 'tests/server/test_x.py::test_y', runs nothing; '' where it may run."""
    path, _, function = name.partition("::")
    found, skipped = _tests_of(PROJECT / path)
    if function not in found:
        return "is not there"
    node = found[function]
    calls = [one for one in node.body if isinstance(one, ast.Expr)]  # not within an `if`
    always = skipped or any(map(_skips, [*node.decorator_list, *calls]))
    return "is skipped always" if always else ""


@cache
def _tests_of(path: Path) -> tuple[dict[str, ast.FunctionDef | ast.AsyncFunctionDef], bool]:
    """The functions of a file by name, and whether a mark skips all of them."""
    if not path.exists():
        return {}, False
    module = ast.parse(path.read_text(encoding="utf-8"))
    functions = {
        one.name: one
        for one in module.body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    marks = [
        one.value
        for one in module.body
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "pytestmark"
    ]
    return functions, any(map(_skips, marks))


def _skips(node: ast.AST) -> bool:
    """A mark or a call that skips whatever there is; `skipif` asks first."""
    return bool(re.search(r"pytest\.(mark\.)?(skip|xfail)\b", ast.unparse(node)))
