"""A fresh process per case, in milliseconds.

A server that has imported torch and transformers, but has never touched CUDA, forks one child per
job. The child's only result are files; what comes back here is how it ended. One server can serve
several kernels (its address travels in the environment), so that a batch of notebooks pays for the
imports once. Run as `python -m hybridlab.processes.isolate ADDRESS`, which `CaseServer.start` does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import pickle
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hybridlab.catalog.device_names import simulated_card
from hybridlab.errors import HybridlabError, UnavailableError

ADDRESS_VARIABLE = "HYBRIDLAB_CASE_SERVER"
START_TIMEOUT_S = 180.0
TICK_S = 0.25
#: The reason of what a reader who watched has stopped.
STOPPED = "stopped by the reader"
#: What every case needs, imported once in the server.
PRELOAD = (
    "torch",
    "transformers.models.whisper.modeling_whisper",
    "transformers.models.whisper.processing_whisper",
    "transformers.models.voxtral.modeling_voxtral",
    "transformers.models.voxtral.processing_voxtral",
    "transformers.models.llama.modeling_llama",
    "transformers.generation",
    "transformers.tokenization_mistral_common",
    "mistral_common.protocol.transcription.request",
    "whisper",
    "soundfile",
    "soxr",
    "hybridlab.experiments.execute",
)


@dataclass(frozen=True)
class Exit:
    """How a case's process ended."""

    code: int | None  # None when a signal ended it
    signal: int | None
    seconds: float
    timed_out: bool = False
    stopped: bool = False  # on the word of `on_tick`

    @property
    def ok(self) -> bool:
        return self.code == 0

    def reason(self, whose: str = "the case's") -> str:
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


# ---------------------------------------------------------------------------------------- client


class CaseServer:
    """Owns the server process, or borrows one for the same card whose address stands in the
    environment. `card` is a simulated one; without it cases find the devices of this machine."""

    def __init__(self, card: str = "") -> None:
        self.card = card
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
            [sys.executable, "-m", "hybridlab.processes.isolate", self.address],
            stdin=subprocess.PIPE,  # its end of file tells the server that we are gone
            env={**os.environ, **self._environment(), ADDRESS_VARIABLE: self.address},
        )
        atexit.register(self.stop)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not Path(self.address).exists():
            if self._process.poll() is not None:
                raise UnavailableError(
                    f"the case server ended with exit code {self._process.returncode}; run "
                    "'python -m hybridlab.processes.isolate /tmp/x' to see why, or set inline: true"
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
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(
        self,
        function: Callable[..., None],
        *arguments: Any,
        timeout_s: float = 1800.0,
        log: Path | None = None,
        on_tick: Callable[[int], bool | None] | None = None,
    ) -> Exit:
        """Run `function(*arguments)` in a fresh process and wait for its end.

        Function and arguments must pickle. Output of the child goes to `log`. `on_tick(pid)` is
        called four times a second while it runs, and stops it by answering True. However this ends
        (an interrupt, too), the connection is closed, at which the server ends the child and its
        own children.
        """
        with self.fork(function, *arguments, log=log) as child:
            while (ended := child.wait(TICK_S)) is None:
                if child.seconds > timeout_s:
                    return Exit(None, signal.SIGKILL, child.seconds, timed_out=True)
                if on_tick is not None and on_tick(child.pid):
                    return Exit(None, signal.SIGKILL, child.seconds, stopped=True)
            return ended

    def fork(
        self, function: Callable[..., None], *arguments: Any, log: Path | None = None
    ) -> Child:
        """Begin `function(*arguments)` in a fresh process; it lives at most as long as the `Child`
        that stands for it here, and as this process."""
        job = pickle.dumps((function, arguments))
        connection, pid = self._asked(job, str(log) if log else "")
        return Child(int(pid), connection)

    def prepare(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(*arguments)` in the server itself, once: what it caches, every process has
        that is forked from now on. It must leave CUDA and threads alone."""
        job = pickle.dumps((function, arguments))
        if job in self._prepared:
            return
        connection, fault = self._asked(job, None)
        connection.close()
        if fault:
            raise UnavailableError(f"the case server could not be prepared: {fault.decode()}")
        self._prepared.add(job)

    def _asked(self, job: bytes, log: str | None) -> tuple[socket.socket, bytes]:
        """The server's first answer about this job, and the connection to it."""
        self.start()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self.address)
            send(connection, pickle.dumps((job, log, str(Path.cwd()))))
            answer = receive(connection)
        except BaseException:
            connection.close()
            raise
        if answer is None:
            connection.close()
            raise UnavailableError("the case server went away before it had answered")
        return connection, bytes(answer)


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

    def wait(self, timeout_s: float) -> Exit | None:
        """How it ended; None if it has not within this time."""
        if not select.select([self.connection], [], [], timeout_s)[0]:
            return None
        answer = receive(self.connection)
        if answer is None:
            raise UnavailableError("the case server went away in the middle of a case")
        status = pickle.loads(answer)
        if os.WIFSIGNALED(status):
            return Exit(None, os.WTERMSIG(status), self.seconds)
        return Exit(os.WEXITSTATUS(status), None, self.seconds)

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared: dict[str, CaseServer] = {}
_sharing = threading.Lock()


def shared_server(device: str = "") -> CaseServer:
    """This process' server for cases of this device, started at the first call; any thread may ask.
    A process that was started with a simulated card shares the server that it comes from."""
    card = simulated_card(device)
    name = card.name if card else Path(os.environ.get(ADDRESS_VARIABLE, "")).name.partition("-")[2]
    with _sharing:
        if not (name in _shared and _shared[name].address):
            _shared[name] = CaseServer(name)
        return _shared[name].start()


def send(connection: socket.socket, payload: bytes) -> None:
    """One framed message."""
    connection.sendall(struct.pack("!Q", len(payload)) + payload)


def receive(connection: socket.socket) -> bytearray | None:
    """One framed message; None at the end of the stream."""
    header = bytearray(8)
    if not fill(connection, header):
        return None
    payload = bytearray(struct.unpack("!Q", header)[0])
    return payload if fill(connection, payload) else None


def fill(connection: socket.socket, block: bytearray) -> bool:
    """Receive as many bytes as the block has; False where the stream ends before. One block: a
    process that is short of memory holds a message once, not twice."""
    rest = memoryview(block)
    while rest:
        read = connection.recv_into(rest)
        if not read:
            return False
        rest = rest[read:]
    return True


# ---------------------------------------------------------------------------------------- server


class _Server:
    """One thread, one selector: new jobs, ended children, vanished clients, a vanished owner."""

    def __init__(self, address: str) -> None:
        self.children: dict[int, socket.socket | None] = {}  # None: its client has gone
        self.selector = selectors.DefaultSelector()
        self.wake_read, wake_write = socket.socketpair()
        self.wake_read.setblocking(False)
        wake_write.setblocking(False)
        self._wake_write = wake_write
        signal.set_wakeup_fd(wake_write.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        temporary = address + ".starting"
        self.listener.bind(temporary)
        self.listener.listen()
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self.wake_read, selectors.EVENT_READ, self._reap)
        self.selector.register(sys.stdin.buffer, selectors.EVENT_READ, self._owner_gone)
        Path(temporary).rename(address)  # the address appears only once we listen

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data(key.fileobj)

    def _accept(self, listener: Any) -> None:
        connection, _ = listener.accept()
        message = receive(connection)
        if message is None:
            connection.close()
            return
        job, log, folder = pickle.loads(message)
        if log is None:
            send(connection, _prepared(job))
            connection.close()
            return
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_case(connection, job, log, folder)
        with contextlib.suppress(OSError):  # both sides set it, so that a kill finds the group
            os.setpgid(pid, pid)
        self.children[pid] = connection
        send(connection, str(pid).encode())
        self.selector.register(connection, selectors.EVENT_READ, self._client_gone)

    def _become_case(self, connection: socket.socket, job: bytes, log: str, folder: str) -> None:
        code = 70
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            for opened in (self.listener, self.wake_read, self._wake_write, connection):
                opened.close()
            for other in self.children.values():
                if other is not None:
                    other.close()
            self.selector.close()
            _redirect(log)
            os.chdir(folder)
            _prefer_to_be_killed()
            function, arguments = pickle.loads(job)
            function(*arguments)
            code = 0
        except BaseException:  # the process ends here: its log is where the reason goes
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self, wake: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            while wake.recv(4096):
                pass
        for pid, status in _ended_children():
            connection = self.children.pop(pid, None)
            if connection is None:
                continue
            self.selector.unregister(connection)
            with contextlib.suppress(OSError):  # the client may have left in the meantime
                send(connection, pickle.dumps(status))
            connection.close()

    def _client_gone(self, connection: Any) -> None:
        for pid, known in self.children.items():
            if known is connection:
                _kill_group(pid)
                self.children[pid] = None
        self.selector.unregister(connection)
        connection.close()

    def _owner_gone(self, stdin: Any) -> None:
        if stdin.read1(4096):
            return
        for pid in self.children:
            _kill_group(pid)
        os._exit(0)  # nothing is left to save; imported libraries complain when unloaded


def _prepared(job: bytes) -> bytes:
    """Do this job here; the fault that ended it, or nothing."""
    try:
        function, arguments = pickle.loads(job)
        function(*arguments)
    except Exception as error:  # the client raises it; the server goes on without
        return repr(error).encode()
    _freeze()
    return b""


def _freeze() -> None:
    """A collection in a case need not walk what the server holds, nor copy its pages."""
    gc.collect()
    gc.freeze()


def _ended_children() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _redirect(log: str) -> None:
    target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(target, 1)
    os.dup2(target, 2)


def _prefer_to_be_killed() -> None:
    """If the host runs out of memory, the kernel should end the case and not the notebook."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def main(address: str) -> None:
    """Import everything, then serve until the owner's end of our stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides, by closing our stdin
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for module in PRELOAD:
        importlib.import_module(module)
    _freeze()
    _Server(address).serve()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise HybridlabError("usage: python -m hybridlab.processes.isolate ADDRESS")
    main(sys.argv[1])
