"""Workers: processes of their own that do what they are asked, call by call.

The case server forks them, which has imported torch and never touched CUDA: so a worker can be
started, and started again, by a process that has a CUDA context itself. A worker lives at most as
long as the process that asked for it, however that ends.
"""

from __future__ import annotations

import asyncio
import select
import socket
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import HybridlabError, WorkerFaultError, WorkerLostError
from hybridlab.processes.fork_server import Child, shared_server
from hybridlab.processes.messages import Message, receive, receive_async, send, send_async

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
#: What a caller sends during a call when it wants no more progress; calls are tuples.
CANCEL = Message.of(None)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Progress:
    """What is sent before the answer."""

    value: Any


class Worker:
    """One process and a channel to it; one caller at a time.

    >>> with Worker("asr") as worker:            # doctest: +SKIP
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
        channel = self._running()
        message = Message.of((function, arguments, keywords))
        try:
            send(channel, message)
            while isinstance(found := receive(channel).value(), _Progress):
                continue
        except (OSError, EOFError):  # a process that is killed ends or resets the connection
            raise self._lost() from None
        except BaseException:  # an interrupt: the answer on its way would be taken for the next
            self.kill()
            raise
        return _answer_of(found)  # type: ignore[no-any-return]

    async def call_async(
        self,
        on_progress: Callable[[Any], bool] | None,
        function: Callable[..., Answer],
        *arguments: Any,
        **keywords: Any,
    ) -> Answer:
        """As `call`, for an event loop, without a thread that waits: between two cores each change
        of threads costs as much as the call. Meanwhile `on_progress` is given whatever `function`
        emits there (`emit`); False from it is what `emit` returns from then on; it must not raise.
        Cancelling the call kills the process: nothing else would end what that is at.
        """
        channel = self._running()
        message = Message.of((function, arguments, keywords))
        try:
            channel.setblocking(False)
            await send_async(channel, message)
            while isinstance(found := (await receive_async(channel)).value(), _Progress):
                if on_progress is not None and not on_progress(found.value):
                    on_progress = None
                    await send_async(channel, CANCEL)
            channel.setblocking(True)
        except (OSError, EOFError):
            raise await asyncio.to_thread(self._lost) from None
        except BaseException:
            self.kill()
            raise
        return _answer_of(found)  # type: ignore[no-any-return]

    def _running(self) -> socket.socket:
        if self._channel is None:
            raise WorkerLostError(f"the worker {self.name} does not run; start it first")
        return self._channel

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
        how = ended.describe("its") if ended is not None else "it closed its channel and hung"
        self.kill()
        return WorkerLostError(f"the worker {self.name} was lost: {how}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _answer_of(reply: tuple[Exception | None, Any]) -> Any:
    fault, value = reply
    if fault is not None:
        raise fault
    return value


# -------------------------------------------------------------------------- inside the process


class _CallerChannel:
    """The other end of the channel, as a function that is called sees it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.listens = True

    def emit(self, value: Any) -> bool:
        if self.listens:
            send(self.channel, Message.of(_Progress(value)))
            if select.select([self.channel], [], [], 0)[0]:
                receive(self.channel)  # during a call only `CANCEL` can come
                self.listens = False
        return self.listens


_caller: _CallerChannel | None = None  # one worker, one caller


def emit(value: Any) -> bool:
    """Send the caller something before the answer; whether it wants more."""
    if _caller is None:
        raise RuntimeError("emit() was called outside a worker's call: there is no caller")
    return _caller.emit(value)


def _work(address: str) -> None:
    """Answer calls until the other side closes the channel."""
    global _caller
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.connect(address)
        while True:
            try:
                message = receive(channel)
            except EOFError:
                return
            if message.body == CANCEL.body:  # the answer was on its way already
                continue
            _caller = _CallerChannel(channel)
            send(channel, _reply_to(message))


def _reply_to(message: Message) -> Message:
    """A pair: the fault or None, and the answer."""
    try:
        function, arguments, keywords = message.value()
        return Message.of((None, function(*arguments, **keywords)))
    except Exception as error:  # whatever it is, it belongs to the caller
        return Message.of((_portable(error), None))


def _portable(error: Exception) -> Exception:
    """The error as one that pickles; what it came from does not travel, so it is looked at here."""
    if isinstance(error, HybridlabError):
        return error
    failure = out_of_memory(error)
    if failure is not None:
        return MemoryError(failure.message)
    return WorkerFaultError("".join(traceback.format_exception(error)).strip())
