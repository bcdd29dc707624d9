"""A real server whose machine is in trouble: nobody reads its log, its disk is full, and it has no
file handles left."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.endurance.hostile import encoded, tone


@dataclass
class Troubled:
    process: subprocess.Popen[str]
    url: str

    def transcribe(self, data: bytes) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v1/audio/transcriptions",
            files={"file": data},
            data={"model": "whisper-1"},
            headers={"Connection": "close"},
            timeout=30,
            trust_env=False,
        )

    @contextmanager
    def limited(self, kind: int, most: int) -> Iterator[None]:
        before = resource.prlimit(self.process.pid, kind)
        resource.prlimit(self.process.pid, kind, (most, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.process.pid, kind, before)

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def files_at_rest(self) -> int:
        """The fewest within half a second, in which connections of answered requests end."""
        least = self.files()
        for _ in range(25):
            time.sleep(0.02)
            least = min(least, self.files())
        return least


@pytest.fixture(scope="module")
def server() -> Iterator[Troubled]:
    """Its log is a pipe that nobody reads from the moment at which it is ready."""
    models = ["--only", "asr", "--asr-model", "pocket-s", "--device", "cpu"]
    command = [sys.executable, "-m", "hybridlab.cli", "serve", "--port", "0", *models]
    environment = {name: v for name, v in os.environ.items() if name != "HYBRIDLAB_CASE_SERVER"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        urls = (re.search(r"(http://\S+) serves", line) for line in process.stderr)
        url = next(found[1] for found in urls if found)
        process.stderr.close()
        yield Troubled(process, url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_log_that_nobody_reads_costs_no_request(server: Troubled) -> None:
    for _ in range(3):
        assert server.transcribe(encoded(tone(1.0))).status_code in (200, 422)
    assert server.process.poll() is None


def test_an_upload_of_megabytes_is_served_on_a_full_disk(server: Troubled) -> None:
    """The kernel refuses each byte that the server would write into a file."""
    data = encoded(tone(6.5, rate=192_000), rate=192_000, subtype="FLOAT")
    assert len(data) > 4.9 * 10**6
    with server.limited(resource.RLIMIT_FSIZE, 0):
        assert server.transcribe(data).status_code in (200, 422)
    assert server.transcribe(data).status_code in (200, 422)


def test_without_file_handles_new_connections_wait_and_are_served(server: Troubled) -> None:
    data = encoded(tone(1.0))
    assert server.transcribe(data).status_code in (200, 422)
    before = server.files_at_rest()
    with server.limited(resource.RLIMIT_NOFILE, before + 2), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: server.transcribe(data).status_code, range(4)))
    assert set(found) <= {200, 422}, found
    assert server.transcribe(data).status_code in (200, 422)
    assert server.files_at_rest() == before
