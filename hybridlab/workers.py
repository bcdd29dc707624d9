"""Workers: processes of their own that do what they are asked, call by call.

The case server forks them, which has imported torch and never touched CUDA: so a worker can be
started, and started again, by a process that has a CUDA context itself. A worker lives at most as
long as the process that asked for it, however that ends.
"""

from __future__ import annotations

import pickle
import select
import socket
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from hybridlab.errors import HybridlabError, WorkerFaultError, WorkerLostError
from hybridlab.isolate import Child, receive, send, shared_server
from hybridlab.oom import out_of_memory

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
#: What a caller says in mid-call when it wants to hear no more.
STOP = b""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _News:
    """What is told before the answer."""

    value: Any


class Worker:
    """One process and a channel to it; one caller at a time.

    >>> with Worker("whisper") as worker:            # doctest: +SKIP
    ...     worker.call(os.getpid)
    """

    def __init__(self, name: str, *, log: Path | None = None) -> None:
        self.name = name
        self.log = log
        self._child: Child | None = None
        self._channel: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """None where it is not running."""
        return None if self._child is None else self._child.pid

    def start(self) -> Self:
        """Fork the process, in place of one before; `WorkerLostError` if it ends at once."""
        self.kill()
        with (
            tempfile.TemporaryDirectory(prefix="hybridlab-worker-") as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        ):
            address = str(Path(folder) / "calls")
            listener.bind(address)
            listener.listen(1)
            self._child = shared_server().fork(_work, address, log=self.log)
            waited_for = [listener, self._child.connection]
            if listener not in select.select(waited_for, [], [], START_TIMEOUT_S)[0]:
                raise self._lost()
            self._channel, _ = listener.accept()
        return self

    def call(self, function: Callable[..., Answer], *arguments: Any, **keywords: Any) -> Answer:
        """`function(*arguments, **keywords)` in the worker; all of it must pickle, the answer too.

        Faults come back: the lab's own errors as they are, an allocator's as `MemoryError` in its
        words, others as `WorkerFaultError`. `WorkerLostError` if the process ends meanwhile.
        """
        return self.call_heard(None, function, *arguments, **keywords)

    def call_heard(
        self,
        hear: Callable[[Any], bool] | None,
        function: Callable[..., Answer],
        *arguments: Any,
        **keywords: Any,
    ) -> Answer:
        """As `call`; meanwhile `hear` is given whatever `function` tells there (`tell`). False from
        it is what `tell` returns from then on; `hear` must not raise."""
        if self._channel is None:
            raise WorkerLostError(f"the worker {self.name} does not run; start it first")
        message = pickle.dumps((function, arguments, keywords))
        try:
            send(self._channel, message)
            answer = self._heard(self._channel, hear)
        except OSError:  # a process that is killed resets the connection
            answer = None
        except BaseException:  # an interrupt: the answer on its way would be taken for the next
            self.kill()
            raise
        if answer is None:
            raise self._lost()
        fault, value = answer
        if fault is not None:
            raise fault
        return value  # type: ignore[no-any-return]

    @staticmethod
    def _heard(channel: socket.socket, hear: Callable[[Any], bool] | None) -> Any:
        """The answer, news before it handed on; None at the end of the stream."""
        listens = hear is not None
        while (message := receive(channel)) is not None:
            found = pickle.loads(message)
            if not isinstance(found, _News):
                return found
            if listens and hear is not None and not hear(found.value):
                listens = False
                send(channel, STOP)
        return None

    def close(self) -> None:
        """Let it end by itself, and wait until it has."""
        if self._channel is not None:
            self._channel.close()  # the end of the stream tells it to go
            self._channel = None
        if self._child is not None:
            self._child.wait(END_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._child is not None:
            self._child.close()
            self._child = None

    def _lost(self) -> WorkerLostError:
        """The error that says how the process ended; no process is left."""
        ended = self._child.wait(END_TIMEOUT_S) if self._child is not None else None
        how = ended.reason("its") if ended is not None else "it closed its channel and hung"
        self.kill()
        return WorkerLostError(f"the worker {self.name} was lost: {how}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


# -------------------------------------------------------------------------- inside the process


class _Caller:
    """The other end of the channel, as a function that is called sees it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.listens = True

    def tell(self, value: Any) -> bool:
        if self.listens:
            send(self.channel, pickle.dumps(_News(value)))
            if select.select([self.channel], [], [], 0)[0]:
                receive(self.channel)  # in mid-call only `STOP` can come
                self.listens = False
        return self.listens


_caller: _Caller | None = None  # one worker, one caller


def tell(value: Any) -> bool:
    """Tell the caller something before the answer; whether it still listens."""
    if _caller is None:
        raise RuntimeError("nobody listens: this process is no worker")
    return _caller.tell(value)


def _work(address: str) -> None:
    """Answer calls until the other side closes the channel."""
    global _caller
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.connect(address)
        while (message := receive(channel)) is not None:
            if message == STOP:  # the answer was on its way already
                continue
            _caller = _Caller(channel)
            send(channel, _answered(message))


def _answered(message: bytearray) -> bytes:
    """A pickled pair: the fault or None, and the answer."""
    try:
        function, arguments, keywords = pickle.loads(message)
        return pickle.dumps((None, function(*arguments, **keywords)))
    except Exception as error:  # whatever it is, it belongs to the caller
        return pickle.dumps((_portable(error), None))


def _portable(error: Exception) -> Exception:
    """The error as one that pickles; what it came from does not travel, so it is looked at here."""
    if isinstance(error, HybridlabError):
        return error
    failure = out_of_memory(error)
    if failure is not None:
        return MemoryError(failure.message)
    return WorkerFaultError("".join(traceback.format_exception(error)).strip())
