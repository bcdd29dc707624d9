"""What the server adds to the strategies, as JSON on stdout: `python -m benchmarks.serve`.

The pocket pair on this machine's CPU, over loopback. Four figures: seconds until ready; what HTTP
adds to a request at the median, against the same strategy called in this process on the same file;
throughput with many clients against the same strategy in this process with all requests there; and
what micro-batching gains Whisper on short clips. Arms are interleaved in rounds, ratios are taken
within a round. No other work should run.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from hybridlab.audio import Clip, load_clips
from hybridlab.device import CpuDevice
from hybridlab.records import machine, versions
from hybridlab.stats import bootstrap_interval
from hybridlab.strategies import Inbox, Request, Strategy, make_strategy
from hybridlab.tenants import TenantSpec, make_analyst, make_transcriber

QUESTION = "What is said?"
MAX_TOKENS = 64
ROUNDS = 3
PAIRS = 20
REQUESTS = 32
CLIENTS = 16
BATCH = 8
SHORT_S = 8.0


@dataclass
class Server:
    """A server of its own process, and a client to it."""

    http: httpx.Client
    ready_s: float

    def hybrid(self, clip: Clip) -> None:
        with clip.path.open("rb") as file:
            data = {"question": QUESTION, "max_tokens": str(MAX_TOKENS)}
            self._checked(self.http.post("/v1/hybrid", files={"file": file}, data=data))

    def transcribe(self, clip: Clip) -> None:
        with clip.path.open("rb") as file:
            data = {"model": "whisper-1"}
            self._checked(
                self.http.post("/v1/audio/transcriptions", files={"file": file}, data=data)
            )

    @staticmethod
    def _checked(response: httpx.Response) -> None:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {response.text}")


@contextmanager
def server(*options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "hybridlab.cli", "serve", "--device", "cpu", "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"(http://\S+) serves", line):
                break
        else:
            raise SystemExit("the server ended before it was ready")
        ready_s = time.perf_counter() - began
        with (
            ThreadPoolExecutor(1) as drain,
            httpx.Client(
                base_url=found[1], timeout=120, limits=httpx.Limits(max_connections=CLIENTS)
            ) as client,
        ):
            drain.submit(lambda: [None for _ in process.stderr or ()])
            yield Server(client, ready_s)
            process.terminate()
    finally:
        process.terminate()
        process.wait(30)


def strategy(variant: str, stack: ExitStack, **options: object) -> Strategy:
    """The pocket pair in this process, loaded."""
    device = CpuDevice()
    spec = {"weights": "pocket", "dtype": "float32"}
    made = make_strategy(
        "sequential",
        variant,
        transcriber=make_transcriber(
            TenantSpec(model="pocket-m", backend="openai-whisper", **spec), device
        ),
        analyst=make_analyst(TenantSpec(model="pocket", backend="transformers", **spec), device),
        options=options,
    )
    made.open()
    stack.callback(made.close)
    return made


def request_of(clip: Clip) -> Request:
    return Request(id=clip.id, samples=clip.samples(), question=QUESTION, max_new_tokens=MAX_TOKENS)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def overhead(served: Server, plain: Strategy, clips: Sequence[Clip]) -> dict[str, Any]:
    """One request at a time, in the order A B B A; the file is read and decoded in both."""
    inside, outside = [], []
    for index in range(PAIRS):
        clip = clips[index % len(clips)]
        arms = [
            (inside, lambda clip=clip: plain.serve(request_of(clip))),
            (outside, lambda clip=clip: served.hybrid(clip)),
        ]
        for own, work in arms + arms[::-1]:
            own.append(seconds(work))
    added = bootstrap_interval([b - a for a, b in zip(inside, outside, strict=True)])
    return {
        "in_process_median_s": statistics.median(inside),
        "http_median_s": statistics.median(outside),
        "added_s": added.value,
        "added_interval_s": [added.low, added.high],
    }


def saturation(served: Server, batched: Strategy, clips: Sequence[Clip]) -> dict[str, Any]:
    """Requests per second with as many as can wait."""
    work = [clips[index % len(clips)] for index in range(REQUESTS)]
    inside, outside = [], []
    for _ in range(ROUNDS):
        inside.append(REQUESTS / seconds(lambda: _stream(batched, work)))
        outside.append(REQUESTS / seconds(lambda: _at_once(served.hybrid, work)))
    ratio = bootstrap_interval([b / a for a, b in zip(inside, outside, strict=True)])
    return {
        "in_process_rps": inside,
        "http_rps": outside,
        "ratio": ratio.value,
        "ratio_interval": [ratio.low, ratio.high],
    }


def _stream(batched: Strategy, work: Sequence[Clip]) -> None:
    for _ in batched.stream(Inbox([request_of(clip) for clip in work])):
        pass


def _at_once(send: Callable[[Clip], None], work: Sequence[Clip]) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, work))


def batching(batched: Server, single: Server, clips: Sequence[Clip]) -> dict[str, Any]:
    """Whisper's requests per second on short clips with and without micro-batches."""
    work = [clips[index % len(clips)] for index in range(REQUESTS)]
    apart, together = [], []
    for _ in range(ROUNDS):
        apart.append(REQUESTS / seconds(lambda: _at_once(single.transcribe, work)))
        together.append(REQUESTS / seconds(lambda: _at_once(batched.transcribe, work)))
    gain = bootstrap_interval([b / a for a, b in zip(apart, together, strict=True)])
    return {
        "unbatched_rps": apart,
        "batched_rps": together,
        "gain": gain.value,
        "gain_interval": [gain.low, gain.high],
    }


def main() -> None:
    clips = [clip for clip in load_clips() if clip.audio_s <= SHORT_S]
    options = ("--batch", str(BATCH))
    with ExitStack() as stack:
        served = stack.enter_context(server(*options))
        single = stack.enter_context(server("--only", "whisper", "--batch", "1"))
        plain = strategy("plain", stack)
        batched = strategy("batched", stack, batch=BATCH)
        for clip in clips:  # what the first request of each kind builds
            plain.serve(request_of(clip))
            served.hybrid(clip)
            single.transcribe(clip)
        _at_once(served.hybrid, clips * 2)
        _stream(batched, clips)
        results = {
            "machine": machine(),
            "versions": versions(),
            "cores_usable": len(os.sched_getaffinity(0)),
            "clips": len(clips),
            "audio_median_s": statistics.median(clip.audio_s for clip in clips),
            "ready_s": [served.ready_s, single.ready_s],
            "overhead": overhead(served, plain, clips),
            "saturation": saturation(served, batched, clips),
            "micro_batches": batching(served, single, clips),
        }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
