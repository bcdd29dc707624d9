"""Pages made of sections: one self-contained HTML file with style and scripts inside, nothing
fetched.

A content policy in the page allows its own scripts by their hashes and nothing else, no network and
no evaluation of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hybridlab.errors import RunFolderError
from hybridlab.reporting.palette import PAGE_COLOURS
from hybridlab.reporting.templating import environment, script_source

TEMPLATES = Path(__file__).with_name("templates")
#: What a section shows: a `Table`, facts by label, HTML, or several of these one after the other.
Block = Any


@dataclass(frozen=True)
class Section:
    """A part of a page: its id there, its heading, and what makes it of the page's subject.
    Without a block it is left out."""

    name: str
    title: str
    show: Callable[[Any], Block]


def render(template: str, **content: Any) -> Markup:
    """A template of this package as HTML."""
    return Markup(environment(TEMPLATES).get_template(template).render(content))


def blocks_of(sections: Sequence[Section], subject: Any) -> list[tuple[Section, Block]]:
    """Each section with its block. The last is made first: what stands near the top tells what
    could not be read for the others."""
    made = [(section, section.show(subject)) for section in reversed(sections)]
    return [(section, block) for section, block in reversed(made) if block]


def write_page(path: Path, template: str, *, later: Sequence[str] = (), **content: Any) -> Path:
    """Render `template` to `path` in one step; `later` are texts that the page's own scripts may
    add as scripts."""
    script = "".join(file.read_text(encoding="utf-8") for file in sorted(TEMPLATES.glob("*.js")))
    page = render(
        template,
        **content,
        css=render("page.css.j2", colours=PAGE_COLOURS),
        script=Markup(script),
        script_hashes=Markup(" ".join(script_source(text) for text in (script, *later))),
    )
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from None
    return path
