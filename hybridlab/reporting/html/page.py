"""One self-contained HTML page from a template: style and scripts inside, nothing fetched.

A content policy in the page allows its own scripts by their hashes and nothing else, no network and
no evaluation of text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hybridlab.errors import RunFolderError

TEMPLATES = Path(__file__).with_name("templates")


def write_page(
    path: Path,
    template: str,
    content: Mapping[str, Any],
    *,
    scripts: Sequence[str] = ("page.js",),
    later: Sequence[str] = (),
) -> Path:
    """Render `template` to `path` in one step.

    `scripts` are files of the templates' folder that run at once; `later` are texts that these may
    add as scripts.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in scripts)
    page = environment.get_template(template).render(
        content,
        css=Markup(environment.get_template("page.css.j2").render()),
        script=Markup(script),
        script_hashes=Markup(" ".join(_source(text) for text in (script, *later))),
    )
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from None
    return path


def _source(script: str) -> str:
    """A script's hash as a content policy names it."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
