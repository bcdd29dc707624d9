"""The table of `hybridlab serve`'s options in docs/serving.md: `python -m tools.serve_options`
writes it from the command itself, a test holds the page against `--help`."""

from __future__ import annotations

import re
from pathlib import Path

from click import Context
from typer.main import get_command

from hybridlab.cli.commands import app

PAGE = Path("docs") / "serving.md"
SECTION = re.compile(r"(<!-- begin options -->\n).*?(<!-- end options -->)", re.DOTALL)


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


def render(text: str) -> str:
    """The page with its table renewed."""
    if not SECTION.search(text):
        raise ValueError(f"{PAGE} has no section <!-- begin options -->")
    return SECTION.sub(lambda found: f"{found[1]}{options_table()}{found[2]}", text)


if __name__ == "__main__":
    page = Path(__file__).resolve().parent.parent / PAGE
    page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
