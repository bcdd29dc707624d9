"""Pickled values over a stream socket, with the memory of their arrays beside the pickle.

An array is sent as it lies, and the block into which it is received is the array's from then on:
a process that is short of memory holds it once, not twice. Every reader raises `EOFError` where the
stream ends, and `OSError` where it breaks.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Self

#: Bytes of the pickle and number of its buffers, whose sizes follow.
_HEAD = struct.Struct("!QQ")
_SIZE = struct.Struct("!Q")
#: An event loop that sends or receives much does something else after so many bytes.
SLICE_BYTES = 1 << 20


@dataclass(frozen=True)
class Message:
    """A pickled value and its buffers. What cannot be pickled fails in `of`; an import that fails
    does so in `value`."""

    body: bytes | bytearray
    buffers: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, value: Any) -> Self:
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return cls(body, [buffer.raw() for buffer in buffers])

    def value(self) -> Any:
        return pickle.loads(self.body, buffers=self.buffers)

    def parts(self) -> list[Any]:
        """What is sent, one after the other."""
        sizes = b"".join(_SIZE.pack(len(buffer)) for buffer in self.buffers)
        head = _HEAD.pack(len(self.body), len(self.buffers))
        return [head + sizes + self.body, *self.buffers]


def send(channel: socket.socket, message: Message) -> None:
    for part in message.parts():
        channel.sendall(part)


def receive(channel: socket.socket) -> Message:
    n_bytes, count = _HEAD.unpack(recv_exactly(channel, _HEAD.size))
    sizes = recv_exactly(channel, _SIZE.size * count)
    body = recv_exactly(channel, n_bytes)
    return Message(body, [recv_exactly(channel, size) for (size,) in _SIZE.iter_unpack(sizes)])


def recv_exactly(channel: socket.socket, n_bytes: int) -> bytearray:
    """So many bytes, in one block."""
    block = bytearray(n_bytes)
    rest = memoryview(block)
    while rest:
        read = channel.recv_into(rest)
        if not read:
            raise EOFError("the stream ended within a message")
        rest = rest[read:]
    return block


async def send_async(channel: socket.socket, message: Message) -> None:
    loop = asyncio.get_running_loop()
    for part in message.parts():
        rest = memoryview(part)
        while rest:
            await loop.sock_sendall(channel, rest[:SLICE_BYTES])
            rest = rest[SLICE_BYTES:]
            if rest:
                await asyncio.sleep(0)


async def receive_async(channel: socket.socket) -> Message:
    n_bytes, count = _HEAD.unpack(await _recv_exactly_async(channel, _HEAD.size))
    sizes = await _recv_exactly_async(channel, _SIZE.size * count)
    body = await _recv_exactly_async(channel, n_bytes)
    wanted = [size for (size,) in _SIZE.iter_unpack(sizes)]
    return Message(body, [await _recv_exactly_async(channel, size) for size in wanted])


async def _recv_exactly_async(channel: socket.socket, n_bytes: int) -> bytearray:
    loop = asyncio.get_running_loop()
    block = bytearray(n_bytes)
    rest, slice_left = memoryview(block), SLICE_BYTES
    while rest:
        read = await loop.sock_recv_into(channel, rest)
        if not read:
            raise EOFError("the stream ended within a message")
        rest, slice_left = rest[read:], slice_left - read
        if slice_left < 0:
            slice_left = SLICE_BYTES
            await asyncio.sleep(0)
    return block
