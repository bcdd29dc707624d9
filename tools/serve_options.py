"""The tables of `hybridlab serve`'s options and of the fields of its requests in docs/serving.md:
`python -m tools.serve_options` writes them from the command and the schemas themselves, tests hold
the page against both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click import Context
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from hybridlab.cli.commands import app
from hybridlab.server.schemas.requests import ChatBody, HybridForm, Refused, TranscriptionForm

PAGE = Path("docs") / "serving.md"


def options_table() -> str:
    """Option, default and help, one row each."""
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    rows = [
        f"| `{option.opts[0]}` | {_shown(option.default)} | {option.help} |"
        for option in serve.get_params(Context(serve))
        if option.name != "help"
    ]
    return "\n".join(["| option | default | what it is |", "| --- | --- | --- |", *rows]) + "\n"


def _shown(default: object) -> str:
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"`{text}`" if text else ""


def fields_table(body: type[BaseModel]) -> str:
    """Field, what becomes of it and why, one row each; those that are refused behind the others."""
    rows = [_row(field.alias or name, field) for name, field in body.model_fields.items()]
    rows.sort(key=lambda row: "| refused |" in row)
    rows.append("| any other | ignored | changes nothing |")
    return (
        "\n".join(["| field | | what it does, or why not |", "| --- | --- | --- |", *rows]) + "\n"
    )


def _row(name: str, field: FieldInfo) -> str:
    refusals = [own for own in field.metadata if isinstance(own, Refused)]
    if not refusals:
        text = str(field.description)
        state = "ignored" if text.startswith("changes nothing") else "served"
        return f"| `{name}` | {state} | {text} |"
    (refused,) = refusals
    harmless = [json.dumps(value) for value in refused.nothing]
    unless = f" (unless it is {' or '.join(f'`{one}`' for one in harmless)})" if harmless else ""
    return f"| `{name}` | refused | {refused.why}{unless} |"


#: What each section of the page is made of.
TABLES: dict[str, Callable[[], str]] = {
    "options": options_table,
    "transcription fields": lambda: fields_table(TranscriptionForm),
    "chat fields": lambda: fields_table(ChatBody),
    "hybrid fields": lambda: fields_table(HybridForm),
}


def render(text: str) -> str:
    """The page with its tables renewed."""
    for name, table in TABLES.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{PAGE} has no section {begin.strip()}")
        text = f"{head}{begin}{table()}{end}{tail}"
    return text


if __name__ == "__main__":
    page = Path(__file__).resolve().parent.parent / PAGE
    page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
