"""What the pages quote, found in their Markdown: commands, messages, and the code they are held
against."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
#: Stands in a quoted message for a value that the code fills in.
VALUE = "…"


def commands(page: Path, program: str) -> list[list[str]]:
    """The arguments of every call of `program` in a page's code, without comments and pipes."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in [*lines, *(" ".join(span.split()) for span in spans)]:
        words = _words(line)
        if words[:1] == [program] and VALUE not in words:
            found.append(words[1:])
    return found


#: What a line begins with that a reader may type.
PROGRAMS = (".", "curl", "git", "hybridlab", "make", "papermill", "pip", "python", "python3")


def command_lines(page: Path) -> list[str]:
    """Every line that a page prints to be typed, without its comment: those of blocks without a
    language, and of the spans in its prose those that are more than a name."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines += [span for span in spans if _program(span) in PROGRAMS and len(span.split()) > 1]
    return [shown for line in lines if (shown := re.sub(r"\s+#.*", "", line).strip())]


def _program(line: str) -> str:
    """The first word that sets no variable."""
    return next((word for word in line.split() if not re.match(r"\w+=", word)), "")


def _words(line: str) -> list[str]:
    if not line.startswith(("hybridlab", "make")):
        return []
    words = shlex.split(line, comments=True)
    ends = [words.index(mark) for mark in (">", "|", "&&", "--") if mark in words]
    return words[: min(ends, default=len(words))]


def messages(page: Path) -> list[str]:
    """Every quoted message of a page."""
    return re.findall(r"^> (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


@cache
def source_texts() -> tuple[str, ...]:
    """Every string in the package's source, with `VALUE` in the place of what is filled in."""
    files = sorted((PROJECT / "hybridlab").rglob("*.py"))
    return tuple(text for path in files for text in _strings(ast.parse(path.read_text())))


def _strings(tree: ast.AST) -> Iterator[str]:
    """Every string but docstrings, whose values are constants of a statement of their own."""
    nodes = list(ast.walk(tree))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values
            )


def is_said(message: str, texts: Iterable[str]) -> bool:
    """Whether one of these texts holds the message, whatever its values are."""
    wanted = re.compile(".*".join(map(re.escape, message.split(VALUE))), re.DOTALL)
    return any(wanted.search(text) for text in texts)
