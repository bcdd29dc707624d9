"""Which processes belong together: a run, its notebooks' kernels, their cases and whatever those
start. A word in the environment goes from each process to all that it starts; the process that
chose it is found by the number in it, since what a process sets itself is not in its /proc entry.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

VARIABLE = "HYBRIDLAB_FAMILY"


def join_family() -> None:
    """Be of the family whose word was inherited, else begin one. Called when the package is
    imported: before it can start a process."""
    os.environ.setdefault(VARIABLE, f"{os.getpid()}-{secrets.token_hex(4)}")


def is_own(pid: int) -> bool:
    """Whether this process, or one that it descends from, is of this process' family."""
    from hybridlab.device.linux import parent

    word = os.environ.get(VARIABLE, "")
    known = {os.getpid(), int(word.partition("-")[0] or 0)}
    at: int | None = pid
    while at:  # 0 has started the first process
        if at in known or (word and _carries(at, word)):
            return True
        at = parent(at)
    return False


def _carries(pid: int, word: str) -> bool:
    """Whether the process was started with this word in its environment; another user's process,
    whose environment is not shown, was not."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{VARIABLE}={word}".encode() in environment.split(b"\0")
