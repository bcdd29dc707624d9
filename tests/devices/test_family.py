"""Whose process is whose: by the word in the environment, and by descent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridlab import FAMILY_VARIABLE
from hybridlab.devices.procfs import is_own

#: Leaves a process behind that its own parent does not wait for, and says its number.
ORPHAN = "sleep 60 >/dev/null 2>&1 & echo $!"


@contextmanager
def orphan(command: str) -> Iterator[int]:
    told = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    pid = int(told.stdout)
    try:
        while b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            time.sleep(0.01)  # until then it is the shell's copy, with the shell's environment
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


def test_this_process_and_what_it_starts_are_own() -> None:
    assert is_own(os.getpid())
    with subprocess.Popen(["sleep", "60"], env={}) as child:  # by descent: it carries no word
        assert is_own(child.pid)
        child.kill()
    assert not is_own(2**22 + 1)  # no such process


def test_a_process_that_nobody_waits_for_is_own_by_its_word() -> None:
    with orphan(ORPHAN) as pid:
        assert is_own(pid)


def test_a_process_of_another_family_is_none() -> None:
    with orphan(f"{FAMILY_VARIABLE}=1-other {ORPHAN}") as pid:
        assert not is_own(pid)
    with orphan(f"env -i {ORPHAN}") as pid:
        assert not is_own(pid)


def test_the_kernel_knows_the_run_that_started_it_and_its_siblings() -> None:
    """`hybridlab run` has started the case server and the kernel, which asks."""
    with subprocess.Popen(["sleep", "60"]) as sibling:
        code = f"from hybridlab.devices.procfs import is_own; print(is_own({os.getpid()}))"
        code += f"; print(is_own({sibling.pid}))"
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        sibling.kill()
    assert told.stdout.split() == ["True", "True"]
