"""Templates of the pages that are written, and what their content policies need. No pandas."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@functools.cache
def environment(folder: Path) -> Environment:
    """The templates of a folder: a name that is not given is an error, not an empty place."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_source(script: str) -> str:
    """A script's hash as a content policy names it."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
