"""The server that forks cases: `python -m hybridlab.processes.fork_loop ADDRESS [MODULE ...]`.

It imports these modules, or what every case needs, touches no GPU, and then forks a child for each
job that comes in on the unix socket ADDRESS. It ends its children's process groups when their
clients go away, and all of them when its own stdin closes, which is the end of the process that
started it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridlab.errors import HybridlabError
from hybridlab.processes.imports import without_iri_parsers
from hybridlab.processes.messages import Message, receive, send

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
    "av",
    "soxr",
    "hybridlab.experiments.case_worker",
)


class ForkLoop:
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
        try:
            job, log, folder = receive(connection).value()
        except EOFError:
            connection.close()
            return
        if log is None:
            send(connection, Message.of(_prepare(job)))
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
        send(connection, Message.of(pid))
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
                send(connection, Message.of(status))
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


def _prepare(job: bytes) -> str:
    """Do this job here; the fault that ended it, or nothing."""
    try:
        function, arguments = pickle.loads(job)
        function(*arguments)
    except Exception as error:  # the client raises it; the server goes on without
        return repr(error)
    _freeze()
    return ""


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


def main(address: str, *modules: str) -> None:
    """Import everything, or these modules, then serve until the owner's end of our stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides, by closing our stdin
    # what is measured or served asks no network: `hybridlab.models.provision` has been there
    os.environ["HF_HUB_OFFLINE"] = "1"
    with without_iri_parsers():
        for module in modules or PRELOAD:
            importlib.import_module(module)
    _freeze()
    ForkLoop(address).serve()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise HybridlabError("usage: python -m hybridlab.processes.fork_loop ADDRESS [MODULE ...]")
    main(*sys.argv[1:])
