"""Imports that cost more than they give."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_iri_parsers() -> Iterator[None]:
    """jsonschema, where it is imported inside, goes without its optional check of IRIs: building
    its parsers takes 2.5 s, and neither notebooks nor questions to models hold an IRI."""
    name = "rfc3987_syntax"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # an import fails as if not installed
    try:
        yield
    finally:
        del sys.modules[name]
