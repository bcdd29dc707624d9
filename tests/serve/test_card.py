"""The real server on a GPU, or on a simulated one: whose the card's bytes are, what each worker
gives back for the other, strangers, killed workers, the end."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
import soundfile

from benchmarks.endurance.server import Running, started
from hybridlab.device import CudaDevice, linux
from hybridlab.device.nvml import nvml_memory, nvml_process_bytes
from hybridlab.serve.engine import Engine, Wish
from hybridlab.serve.pair import Pair
from hybridlab.serve.settings import Settings
from hybridlab.units import MIB
from tests.serve.fakes import sound
from tests.workers_at_work import wait_until

pytestmark = pytest.mark.gpu
#: What a server's contexts and small blocks may change by beside what a test is about.
ABOUT_BYTES = 48 * MIB

STRANGER = """
import sys, torch
torch.zeros(1, device="cuda")
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("here", flush=True)
sys.stdin.read()
"""


@contextmanager
def stranger(*, leaves_bytes: int) -> Iterator[int]:
    """Another program, which holds all of the card but so much: how much that is."""
    before = used_bytes()
    process = subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(leaves_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "here\n"
        yield used_bytes() - before
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: used_bytes() < before + ABOUT_BYTES)


def used_bytes() -> int:
    return nvml_memory(0).used_bytes


def flac(seconds: float) -> bytes:
    at = np.arange(round(seconds * 16_000)) / 16_000
    file = io.BytesIO()
    tone = (0.3 * np.sin(2 * np.pi * 440 * at)).astype(np.float32)
    soundfile.write(file, tone, 16_000, format="FLAC")
    return file.getvalue()


def transcribe(server: Running, seconds: float) -> httpx.Response:
    return httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        files={"file": flac(seconds)},
        data={"model": "whisper-1"},
        timeout=120,
    )


def ask(server: Running, seconds: float) -> httpx.Response:
    data = base64.b64encode(flac(seconds)).decode()
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "flac"}}
    said = [{"role": "user", "content": [audio, {"type": "text", "text": "What is said?"}]}]
    body = {"model": "voxtral", "messages": said, "max_tokens": 4}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)


SERVED = (200, 422)  # a tone has no words


def ledger(server: Running) -> dict[str, float]:
    found = server.metrics("hybridlab_ledger_bytes")
    return {labels.split('"')[1]: value for labels, value in found.items()}


def margin(server: Running) -> float:
    return server.metrics("hybridlab_margin_bytes")[""]


@pytest.fixture(scope="module")
def before() -> int:
    """In use before the server came."""
    return used_bytes()


@pytest.fixture(scope="module")
def server(before: int) -> Iterator[Running]:
    with started("--device", "cuda") as running:
        yield running


def test_each_byte_of_the_card_has_its_owner(server: Running, before: int) -> None:
    """Workers' contexts and caches are no others'."""
    for call in (transcribe, ask):
        assert call(server, 90).status_code in SERVED
    found = ledger(server)
    assert abs(found["others"] - before) < ABOUT_BYTES
    assert sum(found.values()) == pytest.approx(used_bytes(), abs=MIB)
    own = nvml_process_bytes(0)
    pids = [server.pid_of(name) for name in ("whisper", "voxtral")]
    if all(pid in own for pid in pids):  # a driver in a container may not say
        assert found["workers' contexts"] > 0
        held = sum(own[pid] for pid in pids)
        assert held == pytest.approx(sum(found.values()) - found["others"], abs=MIB)


def test_the_server_s_own_process_is_not_on_the_card(server: Running) -> None:
    own = nvml_process_bytes(0)
    assert server.processes()["server"] not in own
    assert server.processes()["case server"] not in own


def test_a_stranger_is_others_and_the_margin_is_less_by_it(server: Running) -> None:
    others, free = ledger(server)["others"], margin(server)
    with stranger(leaves_bytes=512 * MIB) as held:
        assert ledger(server)["others"] - others == pytest.approx(held, abs=ABOUT_BYTES)
        assert free - margin(server) == pytest.approx(held, abs=ABOUT_BYTES)
    assert margin(server) == pytest.approx(free, abs=ABOUT_BYTES)
