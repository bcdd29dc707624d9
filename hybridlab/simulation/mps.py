"""A stand-in for `nvidia-cuda-mps-control`: a daemon that answers on its pipe directory.

Run by its path, so that it needs nothing but Python. `-f` starts the daemon in the foreground, `-d`
in the background; without an option, commands are read from standard input and sent to it. Clients
of MPS compute as before: kernels do not run, so that nothing can be shared between them.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

CONTROL = "control"
DEFAULT_DIRECTORY = "/tmp/nvidia-mps"


def main(arguments: list[str]) -> int:
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", DEFAULT_DIRECTORY))
    match arguments:
        case []:
            return send(folder, sys.stdin.read().splitlines())
        case ["-f"]:
            return serve(folder, background=False)
        case ["-d"]:
            return serve(folder, background=True)
    print("usage: nvidia-cuda-mps-control [-d | -f]", file=sys.stderr)  # noqa: T201
    return 1


def send(folder: Path, commands: list[str]) -> int:
    """Prints what the daemon answers; 1 where none is there."""
    for command in filter(str.strip, commands):
        answer = _ask(folder, command)
        if answer is None:
            print("Cannot find MPS control daemon process")  # noqa: T201
            return 1
        print(answer, end="", flush=True)  # noqa: T201
    return 0


def _ask(folder: Path, command: str) -> str | None:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(_address(folder))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        client.sendall(f"{command.strip()}\n".encode())
        return client.makefile().read()


def _address(folder: Path) -> str:
    """Through this process's own folder: a socket's path may not be long."""
    if folder.is_dir():
        os.chdir(folder)
    return CONTROL


def serve(folder: Path, *, background: bool) -> int:
    if _ask(folder, "get_server_list") is not None:
        print("An instance of this daemon is already running", file=sys.stderr)  # noqa: T201
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONTROL).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(_address(folder))
        listener.listen()
        if background:
            if os.fork():
                return 0
            _leave_terminal()
        _answer(listener)
    return 0


def _leave_terminal() -> None:
    os.setsid()
    with open(os.devnull, "r+b") as nothing:
        for stream in (0, 1, 2):
            os.dup2(nothing.fileno(), stream)


def _answer(listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        with client:
            command = client.makefile().readline().strip()
            if command == "quit":
                Path(CONTROL).unlink()  # before the answer: whoever has it finds no daemon
                return
            known = command in ("get_server_list", "get_default_active_thread_percentage")
            client.sendall(b"" if known else f"Unknown command: {command}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
