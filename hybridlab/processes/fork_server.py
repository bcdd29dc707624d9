"""A fresh process per case, in milliseconds.

A server that has imported torch and transformers, but has never touched CUDA, forks one child per
job. The child's only result are files; what comes back here is how it ended. One server can serve
several kernels (its address travels in the environment), so that a batch of notebooks pays for the
imports once. `fork_loop` is what runs in the server.
"""

from __future__ import annotations

import atexit
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hybridlab.catalog.device_names import simulated_card
from hybridlab.errors import UnavailableError
from hybridlab.processes.messages import Message, receive, send

ADDRESS_VARIABLE = "HYBRIDLAB_CASE_SERVER"
START_TIMEOUT_S = 180.0
TICK_S = 0.25
#: The reason of a case that was stopped through `on_tick`.
STOPPED = "stopped by the reader"


@dataclass(frozen=True)
class ExitStatus:
    """How a case's process ended."""

    code: int | None  # None when a signal ended it
    signal: int | None
    seconds: float
    timed_out: bool = False
    stopped: bool = False  # by `on_tick`

    @property
    def ok(self) -> bool:
        return self.code == 0

    def describe(self, whose: str = "the case's") -> str:
        """One sentence for the `reason` column."""
        if self.stopped:
            return STOPPED
        if self.timed_out:
            return f"stopped after {self.seconds:.0f} s (timeout_s)"
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            hint = "; the host may have run out of memory" if name == "SIGKILL" else ""
            return f"{whose} process was ended by {name}{hint}"
        return f"{whose} process ended with exit code {self.code}"


class CaseServer:
    """Owns the server process, or borrows one for the same card whose address stands in the
    environment. `card` is a simulated one; without it cases find the devices of this machine.
    `modules`: what it imports, in place of all that cases need."""

    def __init__(self, card: str = "", *, modules: Sequence[str] = ()) -> None:
        self.card = card
        self.modules = modules
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._prepared: set[bytes] = set()
        given = os.environ.get(ADDRESS_VARIABLE, "")
        self.address = given if Path(given).name == self._name else ""

    @property
    def _name(self) -> str:
        """The last part of its address, which tells whom it is for."""
        return f"cases-{self.card}" if self.card else "cases"

    def start(self) -> Self:
        """Start the server unless one is there, and wait until its imports are done."""
        if self.address and Path(self.address).exists():
            return self
        self._folder = tempfile.TemporaryDirectory(prefix="hybridlab-")
        self.address = str(Path(self._folder.name) / self._name)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hybridlab.processes.fork_loop", self.address, *self.modules],
            stdin=subprocess.PIPE,  # its end of file tells the server that we are gone
            env={**os.environ, **self._environment(), ADDRESS_VARIABLE: self.address},
        )
        atexit.register(self.stop)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not Path(self.address).exists():
            if self._process.poll() is not None:
                raise UnavailableError(
                    f"the case server ended with exit code {self._process.returncode}; run "
                    "'python -m hybridlab.processes.fork_loop /tmp/x' to see why, or set "
                    "inline: true"
                )
            if time.monotonic() > deadline:
                raise UnavailableError(f"the case server was not ready in {START_TIMEOUT_S:.0f} s")
            time.sleep(0.02)
        return self

    def _environment(self) -> dict[str, str]:
        if not self.card:
            return {}
        from hybridlab.simulation.environment import environment

        assert self._folder is not None
        return environment([self.card], Path(self._folder.name))

    def stop(self) -> None:
        """End an owned server and whatever it runs; a borrowed one is left alone."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        if self._folder is not None:
            self._folder.cleanup()
        self.address = ""
        self._prepared.clear()

    def __enter__(self) -> Self:
        """Inside, its address stands in the environment: whatever is started there borrows it."""
        self._before = os.environ.get(ADDRESS_VARIABLE)
        os.environ[ADDRESS_VARIABLE] = self.start().address
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            os.environ.pop(ADDRESS_VARIABLE, None)
        else:
            os.environ[ADDRESS_VARIABLE] = self._before
        self.stop()

    def run(
        self,
        function: Callable[..., None],
        *arguments: Any,
        timeout_s: float = 1800.0,
        log: Path | None = None,
        on_tick: Callable[[int], bool | None] | None = None,
    ) -> ExitStatus:
        """Run `function(*arguments)` in a fresh process and wait for its end.

        Function and arguments must pickle. Output of the child goes to `log`. `on_tick(pid)` is
        called four times a second while it runs, and stops it by answering True. However this ends
        (an interrupt, too), the connection is closed, at which the server ends the child and its
        own children.
        """
        with self.fork(function, *arguments, log=log) as child:
            while (ended := child.wait(TICK_S)) is None:
                if child.seconds > timeout_s:
                    return ExitStatus(None, signal.SIGKILL, child.seconds, timed_out=True)
                if on_tick is not None and on_tick(child.pid):
                    return ExitStatus(None, signal.SIGKILL, child.seconds, stopped=True)
            return ended

    def fork(
        self, function: Callable[..., None], *arguments: Any, log: Path | None = None
    ) -> Child:
        """Begin `function(*arguments)` in a fresh process; it lives at most as long as the `Child`
        that stands for it here, and as this process."""
        job = pickle.dumps((function, arguments))
        connection, pid = self._ask(job, str(log) if log else "")
        return Child(pid, connection)

    def prepare(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(*arguments)` in the server itself, once: what it caches, every process has
        that is forked from now on. It must leave CUDA and threads alone."""
        job = pickle.dumps((function, arguments))
        if job in self._prepared:
            return
        connection, fault = self._ask(job, None)
        connection.close()
        if fault:
            raise UnavailableError(f"the case server could not be prepared: {fault}")
        self._prepared.add(job)

    def _ask(self, job: bytes, log: str | None) -> tuple[socket.socket, Any]:
        """The connection to the server, and its first answer about this job."""
        self.start()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self.address)
            send(connection, Message.of((job, log, str(Path.cwd()))))
            return connection, receive(connection).value()
        except EOFError:
            connection.close()
            raise UnavailableError("the case server went away before it had answered") from None
        except BaseException:
            connection.close()
            raise


class Child:
    """A process that the server forked for this one. Closing it ends the process and whatever that
    has started; so does the end of this process."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.connection = connection
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def wait(self, timeout_s: float) -> ExitStatus | None:
        """How it ended; None if it has not within this time."""
        if not select.select([self.connection], [], [], timeout_s)[0]:
            return None
        try:
            status = receive(self.connection).value()
        except EOFError:
            raise UnavailableError("the case server went away in the middle of a case") from None
        if os.WIFSIGNALED(status):
            return ExitStatus(None, os.WTERMSIG(status), self.seconds)
        return ExitStatus(os.WEXITSTATUS(status), None, self.seconds)

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared: dict[str, CaseServer] = {}
_sharing = threading.Lock()


def shared_server(device: str = "", *, modules: Sequence[str] = ()) -> CaseServer:
    """This process' server for cases of this device, started at the first call, with these modules
    (`CaseServer`); any thread may ask. A process that was started with a simulated card shares the
    server that it comes from."""
    card = simulated_card(device)
    name = card.name if card else Path(os.environ.get(ADDRESS_VARIABLE, "")).name.partition("-")[2]
    with _sharing:
        if not (name in _shared and _shared[name].address):
            _shared[name] = CaseServer(name, modules=modules)
        return _shared[name].start()
