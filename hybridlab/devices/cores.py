"""The processor's cores, shared by those who compute right now."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from hybridlab.errors import UnavailableError

PLACES = 16  # processes that may share one board


class Cores:
    """Whoever computes has an equal share of the cores, and all of them while alone.

    Two pools of threads that each have all the cores wait for one another at every barrier; two
    that always have half leave cores idle once the shorter work is done. So who is at work stands
    on a board, a byte for each process with the number of its threads at work, and `take_share`
    follows it. torch keeps the number of threads per thread: each must ask for itself.
    """

    def __init__(self, board: memoryview | None = None, *, place: int = 0) -> None:
        self._board = memoryview(bytearray(PLACES)) if board is None else board
        self._place = place
        self._lock = threading.Lock()

    @cached_property
    def all_threads(self) -> int:
        """What torch has for a process that is alone."""
        import torch

        return torch.get_num_threads()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """This thread computes inside."""
        self._count(1)
        self.take_share()
        try:
            yield
        finally:
            self._count(-1)
            self.take_share()

    def take_share(self) -> None:
        """Give this thread its share from now on; cheap where nothing has changed."""
        import torch

        share = max(1, self.all_threads // max(1, sum(self._board)))
        if torch.get_num_threads() != share:
            torch.set_num_threads(share)

    def _count(self, change: int) -> None:
        with self._lock:
            _ = self.all_threads  # before any thread's share can be taken for it
            self._board[self._place] += change


class SharedBoard:
    """A board that several processes see, as a file: one that goes with this object, or one at
    `path` that others may share and that stays."""

    def __init__(self, path: Path | None = None) -> None:
        with ExitStack() as stack:
            if path is None:
                made = tempfile.NamedTemporaryFile(prefix="hybridlab-cores-")  # noqa: SIM115
                path = Path(stack.enter_context(made).name)
            self.path = path
            make_board(path)
            self._board = board_at(path)
            self._file = stack.enter_context(path.open("r+b"))
            self._stack = stack.pop_all()
        self._mine: list[int] = []

    def take_place(self) -> int:
        """A place that nobody has; `UnavailableError` where all are taken. It is this object's
        until that is closed or its process ends: the kernel knows, however it ends."""
        free = [place for place in range(PLACES) if place not in self._mine and self._lock(place)]
        if not free:
            raise UnavailableError(
                f"all {PLACES} places on the board of cores {str(self.path)!r} are taken; name "
                "another file, or end a server that shares it"
            )
        for place in free:
            self.clear(place)  # somebody may have been killed at work there
        for place in free[1:]:
            self._lock(place, fcntl.F_UNLCK)
        self._mine.append(free[0])
        return free[0]

    def _lock(self, place: int, kind: int = fcntl.F_WRLCK) -> bool:
        """Hold this place, or let go of it; False where another holds it. The lock is the open
        file's: whoever else in this process opens and closes the board leaves it alone."""
        lock = struct.pack("hhqqi", kind, os.SEEK_SET, place, 1, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock)
        except BlockingIOError:
            return False
        return True

    def clear(self, place: int) -> None:
        """The process at this place has ended, whatever it was at."""
        self._board[place] = 0

    def close(self) -> None:
        self._board.release()
        self._stack.close()


def make_board(path: Path) -> None:
    """A board without anybody at work, where there is none yet; `UnavailableError` where this file
    cannot be one."""
    try:
        with path.open("ab") as file:
            size = file.tell()
            if size == 0:
                file.truncate(PLACES)  # zeros; of two who come at once it is the same to both
    except OSError as error:
        raise UnavailableError(
            f"the board of cores {str(path)!r} cannot be written ({error.strerror}); name a file "
            "in a folder that all servers may write to"
        ) from None
    if size not in (0, PLACES):
        raise UnavailableError(
            f"{str(path)!r} is no board of cores and is left as it is; name a new file"
        )


def board_at(path: Path) -> memoryview:
    """The board in this file, which another process may have made."""
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), PLACES))
