"""A real server in a process of its own: its log, its workers, its counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil

from hybridlab.devices import procfs

START_S = 300.0


class Running:
    """A server at work, and what it has logged; without `reads_log` until it is ready."""

    def __init__(self, process: subprocess.Popen[str], *, reads_log: bool = True) -> None:
        self.process = process
        self.reads_log = reads_log
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if not self.reads_log and " serves " in line:
                self.process.stderr.close()  # the next line that is logged is refused
            self.lines.append(line.rstrip())
            if self.process.stderr.closed:
                return

    def found(self, pattern: str) -> list[str]:
        return [match[1] for line in list(self.lines) if (match := re.search(pattern, line))]

    @property
    def url(self) -> str:
        return self.found(r"(http://\S+) serves")[0]

    def pid_of(self, role: str) -> int:
        return int(self.found(rf"{role}: \S+ in process (\d+)")[-1])

    def processes(self) -> dict[str, int]:
        """The server's living processes by name: itself, what its workers are forked from, the
        workers. A decoder is what no model's line of the log names."""
        server, *rest = procfs.process_tree(self.process.pid)
        named = {self.pid_of(role): role for role in ("asr", "llm")}
        found = {"server": server}
        for pid in rest:
            if psutil.Process(pid).ppid() == server:
                found["case server"] = pid
            else:
                found[named.get(pid, "decoder")] = pid
        return found

    def metrics(self, name: str) -> dict[str, float]:
        """A metric's values by their labels as they are written; '' without any."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        rows = re.findall(rf"^{name}({{.*}})? (\S+)$", text, flags=re.MULTILINE)
        return {labels: float(value) for labels, value in rows}

    def metric(self, name: str, role: str) -> float:
        return self.metrics(name)[f'{{role="{role}"}}']

    def ended(self, within_s: float = 20) -> int:
        """The exit code."""
        code = self.process.wait(within_s)
        self._reader.join(5)
        return code


@contextmanager
def started(*options: str, reads_log: bool = True, waits: bool = True) -> Iterator[Running]:
    """`hybridlab serve` on the pocket pair, ready unless nobody `waits`; killed at the end if it
    still runs."""
    command = [sys.executable, "-m", "hybridlab.cli", "serve", "--device", "cpu", "--port", "0"]
    environment = {name: v for name, v in os.environ.items() if name != "HYBRIDLAB_CASE_SERVER"}
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=environment
    )
    running = Running(process, reads_log=reads_log)
    try:
        deadline = time.monotonic() + START_S
        while waits and not running.found("(serves)"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start: " + "\n".join(running.lines))
            time.sleep(0.02)
        yield running
    finally:
        process.kill()
        process.wait()
