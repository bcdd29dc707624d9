"""Full-size pieces inside the memory of Colab's host, as JSON on stdout:
`python -m benchmarks.colab_host`.

The kernel limits each piece's private memory to 12.7 GB (RLIMIT_DATA), Python and its libraries
included. `pair`: Voxtral-Mini-3B (random, bfloat16) and Whisper base serve a request on the CPU,
where the host is the device: more than Colab's host ever holds, since a T4 takes the weights away
from it. `files`: the same Voxtral loaded from safetensors, as a released one is; `private` is what
loading took of the host beside the mapped files. Needs 10 GB of disk, takes some minutes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report import model_spec, publish
from hybridlab.devices.procfs import status_bytes
from hybridlab.units import GB

HOST_BYTES = int(12.7 * GB)
PERIOD_S = 0.02


class Peaks:
    """The highest readings of this process' memory while it works."""

    FIELDS = ("VmData", "RssAnon", "VmRSS")

    def __init__(self) -> None:
        self.bytes = dict.fromkeys(self.FIELDS, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self.bytes = {name: max(top, status_bytes(name)) for name, top in self.bytes.items()}

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _voxtral() -> Any:
    """Voxtral-Mini-3B with random weights, loaded on the host."""
    from hybridlab.devices import CpuDevice
    from hybridlab.models import make_llm

    device = CpuDevice()
    made = make_llm(model_spec("mini-3b", "bfloat16", device, "llm"), device)
    made.load()
    return made


def pair(_: Path) -> dict[str, Any]:
    """Both loaded, and one request served."""
    from hybridlab.audio import load_clips
    from hybridlab.devices import CpuDevice
    from hybridlab.models import TranscribeOptions, make_asr

    voxtral, device = _voxtral(), CpuDevice()
    whisper = make_asr(model_spec("base", "float32", device, "asr"), device)
    whisper.load()
    samples = load_clips()[0].samples()
    whisper.transcribe([samples], TranscribeOptions(max_new_tokens=4))
    answer = voxtral.answer([samples], ["What is said?"], max_new_tokens=4)[0]
    weights = voxtral.weights_bytes() + whisper.weights_bytes()
    return {"weights_bytes": weights, "answer_tokens": len(answer.tokens)}


def save(folder: Path) -> dict[str, Any]:
    """Voxtral's true architecture as safetensors; what `files` reads."""
    _voxtral().module().save_pretrained(folder)
    return {"file_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors"))}


def files(folder: Path) -> dict[str, Any]:
    """Loaded as `hub` and `local` weights are."""
    from transformers import VoxtralForConditionalGeneration

    from hybridlab.devices import CpuDevice
    from hybridlab.models.base import storage_bytes
    from hybridlab.models.weights import pretrained

    device = CpuDevice()
    random = model_spec("mini-3b", "bfloat16", device, "llm")
    spec = replace(random, weights="local", path=str(folder))
    return {
        "weights_bytes": storage_bytes(pretrained(VoxtralForConditionalGeneration, spec, device))
    }


PIECES: dict[str, Callable[[Path], dict[str, Any]]] = {"pair": pair, "save": save, "files": files}


def piece(name: str, folder: Path) -> dict[str, Any]:
    """Do it in this process under the limit."""
    resource.setrlimit(resource.RLIMIT_DATA, (HOST_BYTES, HOST_BYTES))
    import torch
    import transformers  # noqa: F401 - what libraries take counts as well

    torch.set_grad_enabled(False)
    base = {name: status_bytes(name) for name in Peaks.FIELDS}
    began = time.perf_counter()
    with Peaks() as peaks:
        found = PIECES[name](folder)
    return {
        **found,
        "seconds": time.perf_counter() - began,
        "before_bytes": base,
        "peak_bytes": peaks.bytes,
    }


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(piece(sys.argv[1], Path(sys.argv[2]))))
        return
    found = {}
    with tempfile.TemporaryDirectory(prefix="hybridlab-bench-") as folder:
        for name in PIECES:
            command = [sys.executable, "-m", "benchmarks.colab_host", name, folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name] = json.loads(done.stdout.strip().splitlines()[-1])
    publish(limit_bytes=HOST_BYTES, **found)


if __name__ == "__main__":
    main()
