"""Services of the compose files as plain processes: their own commands and environments, with the
image's entrypoint, loopback for the container's address and a free port for the container's."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
#: `${NAME}`, `${NAME:-default}`, `${NAME:?reason}`, as the compose specification has them.
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


def compose(name: str, values: dict[str, str]) -> dict[str, Any]:
    """A parsed file with its variables filled in; `KeyError` with the file's own words where a
    value that it requires is missing."""

    def given(found: re.Match[str]) -> str:
        text = values.get(found["name"], "")
        if not text and found["kind"] == "?":
            raise KeyError(f"{found['name']}: {found['rest']}")
        return text or found["rest"] or '""'

    text = (DOCKER / f"compose.{name}.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(VARIABLE.sub(given, text))
    return document


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port: int = door.getsockname()[1]
    return port


class Container:
    """One service as a process."""

    def __init__(self, service: dict[str, Any], ports: dict[str, int], name: str, log: Path):
        self.name = name
        self.port = ports[name]
        self.log = log
        self.command = [_local(word, ports, self.port) for word in service["command"]]
        self.probe = [_local(word, ports, self.port) for word in service["healthcheck"]["test"]]
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.environment = {**kept, **service["environment"], "PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hybridlab.cli", *self.command],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def healthy(self) -> bool:
        """What the service's own health check says."""
        kind, program, *words = self.probe
        assert (kind, program) == ("CMD", "python")
        command = [sys.executable, *words]
        return subprocess.run(command, env=self.environment, check=False).returncode == 0

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ask_to_stop(self) -> None:
        """With the signal that the Dockerfile names."""
        assert self.process is not None
        self.process.terminate()

    def ended(self) -> int:
        """Its exit code, once it has stopped as asked."""
        assert self.process is not None
        try:
            return self.process.wait(20)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)


def _local(word: str, ports: dict[str, int], own: int) -> str:
    if word == "8000":
        return str(own)
    word = word.replace("--host=0.0.0.0", "--host=127.0.0.1").replace(
        "--port=8000", f"--port={own}"
    )
    for name, port in ports.items():
        word = word.replace(f"http://{name}:8000", f"http://127.0.0.1:{port}")
    return word
