"""Which variants of the lab a server can have, with a worker for each model."""

from __future__ import annotations

from hybridlab import catalog
from hybridlab.errors import UnavailableError

_ONE_PROCESS = "works on one request within one process, and the server has a worker for each model"
_SERVER = "is how notebook 05 measures this very server, with --only for one of two"


def served_variant(strategy: str, variant: str) -> catalog.Variant:
    """`ParameterError` for a name that the lab does not know, `UnavailableError` for a variant that
    is not served."""
    own = catalog.variant(strategy, variant)
    if own.nearest:
        why = _SERVER if own.in_servers else _ONE_PROCESS
        nearest = own.nearest if "/" in own.nearest else f"{strategy}/{own.nearest}"
        raise UnavailableError(f"{strategy}/{variant} {why}; use {nearest}")
    return own
