"""What the server adds to the strategies, as JSON on stdout: `python -m benchmarks.serve`.

The pocket pair on this machine's CPU, over loopback. Four figures: seconds until ready; what HTTP
adds to a request at the median, against the same strategy called in this process on the same file;
throughput with many clients against the same strategy in this process with all requests there; and
what micro-batching gains Whisper on short clips. Arms are interleaved in rounds, ratios are taken
within a round, and this process has the settings of malloc and libgomp that the server gives its
workers. No other work should run.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

from benchmarks.endurance.server import started
from benchmarks.report import publish
from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.audio import Clip, load_clips
from hybridlab.devices import CpuDevice
from hybridlab.models import AudioLanguageModel, ModelSpec, SpeechRecognizer, make_asr, make_llm
from hybridlab.server.run import LIBRARIES
from hybridlab.strategies import ArrivalQueue, Request, Strategy, make_strategy

QUESTION = "What is said?"
MAX_TOKENS = 64
ROUNDS = 5
PAIRS = 40
PAUSE_S = 0.02
#: Of a round; its first batch and its last are small.
REQUESTS = 64
CLIENTS = 16
BATCH = 8
SHORT_S = 8.0


@dataclass
class Server:
    """A server of its own process. Clients have a connection each and the file in their hands."""

    address: str
    ready_s: float
    _own: threading.local = field(default_factory=threading.local)

    def hybrid(self, clip: Clip) -> None:
        fields = {"question": QUESTION, "max_tokens": str(MAX_TOKENS), "language": "en"}
        self._post("/v1/hybrid", clip, fields)

    def transcribe(self, clip: Clip) -> None:
        self._post("/v1/audio/transcriptions", clip, {"model": "whisper-1", "language": "en"})

    def _post(self, path: str, clip: Clip, fields: dict[str, str]) -> None:
        if not hasattr(self._own, "connection"):
            self._own.connection = HTTPConnection(self.address, timeout=120)
        connection = self._own.connection
        connection.request("POST", path, form(clip.path.read_bytes(), fields), FORM)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"{response.status}: {body.decode()}")


FORM = {"Content-Type": "multipart/form-data; boundary=border"}


def form(audio: bytes, fields: dict[str, str]) -> bytes:
    """A form as any client sends it."""
    head = "--border\r\nContent-Disposition: form-data; name="
    texts = "".join(f'{head}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    file = f'{head}"file"; filename="audio"\r\nContent-Type: audio/flac\r\n\r\n'
    return (texts + file).encode() + audio + b"\r\n--border--\r\n"


@contextmanager
def server(*options: str) -> Iterator[Server]:
    began = time.perf_counter()
    with started(*options) as running:
        yield Server(running.url.removeprefix("http://"), time.perf_counter() - began)


def pocket_pair() -> tuple[SpeechRecognizer, AudioLanguageModel]:
    """In this process, on its CPU; nothing is loaded."""
    device, spec = CpuDevice(), {"weights": "pocket", "dtype": "float32"}
    asr = make_asr(ModelSpec(model="pocket-m", backend="openai-whisper", **spec), device)
    return asr, make_llm(ModelSpec(model="pocket", backend="transformers", **spec), device)


def strategy(variant: str, stack: ExitStack, **options: object) -> Strategy:
    """The pocket pair in this process, loaded."""
    asr, llm = pocket_pair()
    made = make_strategy("sequential", variant, asr=asr, llm=llm, options=options)
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
    """One request at a time, in the order A B B A; the file is read and decoded in both. Each waits
    a moment: this process' own threads spin for 5 ms after its calls and would slow the server."""
    inside, outside = [], []
    for index in range(PAIRS):
        clip = clips[index % len(clips)]
        arms = [
            (inside, lambda clip=clip: plain.serve(request_of(clip))),
            (outside, lambda clip=clip: served.hybrid(clip)),
        ]
        for own, work in arms + arms[::-1]:
            time.sleep(PAUSE_S)
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
    for _ in batched.stream(ArrivalQueue([request_of(clip) for clip in work])):
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
    missing = {name: value for name, value in LIBRARIES.items() if name not in os.environ}
    if missing:  # malloc reads them when a process begins
        again = [sys.executable, "-m", "benchmarks.serve"]
        os.execve(sys.executable, again, {**os.environ, **missing})
    clips = [clip for clip in load_clips() if clip.audio_s <= SHORT_S]
    options, alone = ("--batch", str(BATCH)), ("--only", "asr")
    with ExitStack() as stack:
        served = stack.enter_context(server(*options))
        single = stack.enter_context(server(*alone, "--batch", "1"))
        others = [
            stack.enter_context(server(*alone, "--asr-backend", "transformers", *how))
            for how in (options, ("--batch", "1"))
        ]
        plain = strategy("plain", stack)
        batched = strategy("batched", stack, batch=BATCH)
        for clip in clips:  # what the first request of each kind builds
            plain.serve(request_of(clip))
            served.hybrid(clip)
            for other in (single, *others):
                other.transcribe(clip)
        _at_once(served.hybrid, clips * 2)
        _stream(batched, clips)
        results = {
            "cores_usable": len(os.sched_getaffinity(0)),
            "clips": len(clips),
            "audio_median_s": statistics.median(clip.audio_s for clip in clips),
            "ready_s": [served.ready_s, single.ready_s],
            "overhead": overhead(served, plain, clips),
            "saturation": saturation(served, batched, clips),
            "micro_batches": batching(served, single, clips),
            "micro_batches_transformers": batching(*others, clips),
        }
    publish(**results)


if __name__ == "__main__":
    main()
