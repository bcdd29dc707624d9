"""Which processes belong together: a run, its notebooks' kernels, their cases and whatever those
start. A word in the environment goes from each process to all that it starts; the process that
chose it is found by the number in it, since what a process sets itself is not in its /proc entry.
"""

from __future__ import annotations

import os
import secrets

FAMILY_VARIABLE = "HYBRIDLAB_FAMILY"


def join_family() -> None:
    """Be of the family whose word was inherited, else begin one. Called when the package is
    imported: before it can start a process."""
    os.environ.setdefault(FAMILY_VARIABLE, f"{os.getpid()}-{secrets.token_hex(4)}")
