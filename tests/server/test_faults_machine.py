"""A real server whose machine is in trouble: nobody reads its log, its disk is full, and it has no
file handles left."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.endurance.hostile import GOOD, encoded, tone
from benchmarks.endurance.server import Running, started
from benchmarks.endurance.watch import at_rest


@pytest.fixture(scope="module")
def asr() -> Iterator[Running]:
    """Its log is a pipe that nobody reads from the moment at which it is ready; its operator has
    set what it would set."""
    with pytest.MonkeyPatch.context() as operator:
        operator.setenv("GOMP_SPINCOUNT", "777")
        with started("--only", "asr", "--asr-model", "pocket-s", reads_log=False) as running:
            yield running
            running.process.send_signal(signal.SIGTERM)
            assert running.ended() == 0


def transcribe(server: Running, data: bytes = GOOD) -> None:
    """A tone has a text, or none."""
    found = httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        files={"file": data},
        data={"model": "whisper-1"},
        headers={"Connection": "close"},
        timeout=30,
        trust_env=False,
    )
    assert found.status_code in (200, 422), found.text


@contextmanager
def limited(server: Running, kind: int, most: int) -> Iterator[None]:
    before = resource.prlimit(server.process.pid, kind)
    resource.prlimit(server.process.pid, kind, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, kind, before)


def files_at_rest(server: Running) -> int:
    """The fewest within half a second, in which connections of answered requests end."""
    counts = []
    for _ in range(25):
        time.sleep(0.02)
        counts.append(at_rest(server)["descriptors"])
    return min(counts)


def test_what_an_operator_has_set_holds(asr: Running) -> None:
    found = Path(f"/proc/{asr.pid_of('asr')}/environ").read_text().split("\0")
    assert "GOMP_SPINCOUNT=777" in found
    assert any(pair.startswith("MALLOC_TRIM_THRESHOLD_=") for pair in found)


def test_a_log_that_nobody_reads_costs_no_request(asr: Running) -> None:
    for _ in range(3):
        transcribe(asr)
    assert asr.process.poll() is None


def test_an_upload_of_megabytes_is_served_on_a_full_disk(asr: Running) -> None:
    """The kernel refuses each byte that the server would write into a file."""
    data = encoded(tone(6.5, rate=192_000), rate=192_000, subtype="FLOAT")
    assert len(data) > 4.9 * 10**6
    with limited(asr, resource.RLIMIT_FSIZE, 0):
        transcribe(asr, data)
    transcribe(asr, data)


def test_without_file_handles_new_connections_wait_and_are_served(asr: Running) -> None:
    transcribe(asr)
    before = files_at_rest(asr)
    with limited(asr, resource.RLIMIT_NOFILE, before + 2), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: transcribe(asr), range(4)))
    transcribe(asr)
    assert files_at_rest(asr) == before
