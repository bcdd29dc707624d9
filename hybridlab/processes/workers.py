"""Workers: processes of their own that do what they are asked, call by call.

The case server forks them, which has imported torch and never touched CUDA: so a worker can be
started, and started again, by a process that has a CUDA context itself. A worker lives at most as
long as the process that asked for it, however that ends.
"""

from __future__ import annotations

import asyncio
import pickle
import select
import socket
import struct
import tempfile
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from hybridlab.devices.oom import out_of_memory
from hybridlab.errors import HybridlabError, WorkerFaultError, WorkerLostError
from hybridlab.processes.isolate import Child, fill, shared_server

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
#: An event loop that sends or receives much does something else after so many bytes.
SLICE_BYTES = 1 << 20

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
        channel = self._running()
        message = _packed((function, arguments, keywords))
        try:
            _send(channel, message)
            answer = _receive(channel)
            while answer is not None and isinstance(found := _unpacked(answer), _News):
                answer = _receive(channel)
        except OSError:  # a process that is killed resets the connection
            answer = None
        except BaseException:  # an interrupt: the answer on its way would be taken for the next
            self.kill()
            raise
        if answer is None:
            raise self._lost()
        return _value(found)  # type: ignore[no-any-return]

    async def call_async(
        self,
        hear: Callable[[Any], bool] | None,
        function: Callable[..., Answer],
        *arguments: Any,
        **keywords: Any,
    ) -> Answer:
        """As `call`, for an event loop, without a thread that waits: between two cores each change
        of threads costs as much as the call. Meanwhile `hear` is given whatever `function` tells
        there (`tell`); False from it is what `tell` returns from then on; `hear` must not raise.
        Cancelling it kills the process: nothing else would end what that is at.
        """
        channel = self._running()
        message = _packed((function, arguments, keywords))
        try:
            channel.setblocking(False)
            await _send_async(channel, message)
            answer = await _receive_async(channel)
            while answer is not None and isinstance(found := _unpacked(answer), _News):
                if hear is not None and not hear(found.value):
                    hear = None
                    await _send_async(channel, STOP)
                answer = await _receive_async(channel)
            channel.setblocking(True)
        except OSError:
            answer = None
        except BaseException:
            self.kill()
            raise
        if answer is None:
            raise await asyncio.to_thread(self._lost)
        return _value(found)  # type: ignore[no-any-return]

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
        how = ended.reason("its") if ended is not None else "it closed its channel and hung"
        self.kill()
        return WorkerLostError(f"the worker {self.name} was lost: {how}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


# ------------------------------------------------------------------------------------ messages

#: Bytes of the pickle and number of the blocks, whose sizes follow.
_HEAD = struct.Struct("!QQ")
_SIZE = struct.Struct("!Q")


@dataclass(frozen=True)
class _Message:
    """A pickled value, and the memory of its arrays: it is sent as it lies, and the block into
    which it is received is the array's from then on."""

    body: bytes | bytearray
    blocks: list[Any]

    def parts(self) -> list[Any]:
        """What is sent, one after the other."""
        sizes = b"".join(_SIZE.pack(len(block)) for block in self.blocks)
        return [_HEAD.pack(len(self.body), len(self.blocks)) + sizes + self.body, *self.blocks]


#: What a caller says in mid-call when it wants to hear no more.
STOP = _Message(b"", [])


def _packed(value: Any) -> _Message:
    blocks: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=blocks.append)
    return _Message(body, [block.raw() for block in blocks])


def _unpacked(message: _Message) -> Any:
    return pickle.loads(message.body, buffers=message.blocks)


def _value(answer: tuple[Exception | None, Any]) -> Any:
    fault, value = answer
    if fault is not None:
        raise fault
    return value


def _send(channel: socket.socket, message: _Message) -> None:
    for part in message.parts():
        channel.sendall(part)


async def _send_async(channel: socket.socket, message: _Message) -> None:
    loop = asyncio.get_running_loop()
    for part in message.parts():
        rest = memoryview(part)
        while rest:
            await loop.sock_sendall(channel, rest[:SLICE_BYTES])
            rest = rest[SLICE_BYTES:]
            if rest:
                await asyncio.sleep(0)


def _filling() -> Generator[bytearray, None, _Message]:
    """Blocks to be filled from the stream, in turn; the message that they then are."""
    head = bytearray(_HEAD.size)
    yield head
    n_bytes, count = _HEAD.unpack(head)
    sizes = bytearray(_SIZE.size * count)
    yield sizes
    body = bytearray(n_bytes)
    yield body
    blocks = [bytearray(size) for (size,) in _SIZE.iter_unpack(sizes)]
    yield from blocks
    return _Message(body, blocks)


def _receive(channel: socket.socket) -> _Message | None:
    """None at the end of the stream."""
    filling = _filling()
    try:
        while fill(channel, next(filling)):
            continue
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    return None


async def _receive_async(channel: socket.socket) -> _Message | None:
    filling = _filling()
    try:
        while await _fill_async(channel, next(filling)):
            continue
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    return None


async def _fill_async(channel: socket.socket, block: bytearray) -> bool:
    """As `isolate.fill`."""
    loop = asyncio.get_running_loop()
    rest, slice_left = memoryview(block), SLICE_BYTES
    while rest:
        read = await loop.sock_recv_into(channel, rest)
        if not read:
            return False
        rest, slice_left = rest[read:], slice_left - read
        if slice_left < 0:
            slice_left = SLICE_BYTES
            await asyncio.sleep(0)
    return True


# -------------------------------------------------------------------------- inside the process


class _Caller:
    """The other end of the channel, as a function that is called sees it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.listens = True

    def tell(self, value: Any) -> bool:
        if self.listens:
            _send(self.channel, _packed(_News(value)))
            if select.select([self.channel], [], [], 0)[0]:
                _receive(self.channel)  # in mid-call only `STOP` can come
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
        while (message := _receive(channel)) is not None:
            if message == STOP:  # the answer was on its way already
                continue
            _caller = _Caller(channel)
            _send(channel, _answered(message))


def _answered(message: _Message) -> _Message:
    """A pair: the fault or None, and the answer."""
    try:
        function, arguments, keywords = _unpacked(message)
        return _packed((None, function(*arguments, **keywords)))
    except Exception as error:  # whatever it is, it belongs to the caller
        return _packed((_portable(error), None))


def _portable(error: Exception) -> Exception:
    """The error as one that pickles; what it came from does not travel, so it is looked at here."""
    if isinstance(error, HybridlabError):
        return error
    failure = out_of_memory(error)
    if failure is not None:
        return MemoryError(failure.message)
    return WorkerFaultError("".join(traceback.format_exception(error)).strip())
