"""Files of the reader's own through one Whisper and every backend that is installed, one after the
other, each in a process of its own: its memory and its faults are its own too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.audio import Recording, Samples, check_clip, printable
from hybridlab.devices import Device, resolve_device
from hybridlab.errors import AudioError, HybridlabError, ParameterError, UnavailableError
from hybridlab.models.base import ModelSpec, SpeechRecognizer, resolve_dtype
from hybridlab.models.fetch_progress import Listener
from hybridlab.models.provision import fetch
from hybridlab.models.source import check_source
from hybridlab.models.transcription import FinishReason, TranscribeOptions
from hybridlab.processes.worker import Worker
from hybridlab.profiling.memory_profiler import Sampler
from hybridlab.simulation import NO_TIMES

#: Of the first file, and tokens: decoded before anything is timed, as libraries load lazily.
WARM_UP_S, WARM_UP_TOKENS = 1.0, 8


@dataclass(frozen=True, kw_only=True)
class HeardFile:
    """A file that was transcribed."""

    path: str
    audio_s: float
    #: What was done to it so that it can be heard; '' for nothing.
    note: str


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What one backend made of one file."""

    text: str
    #: Whisper's code, as it was asked for or detected.
    language: str
    finish_reason: FinishReason
    seconds: float
    rtfx: float


@dataclass(frozen=True, kw_only=True)
class BackendResult:
    """What became of one backend: its transcripts in the order of the files, or the reason why it
    has none."""

    backend: str
    dtype: str
    reason: str = ""
    load_s: float | None = None
    #: What the process held before the backend's libraries and weights were loaded, and at most
    #: while it transcribed; on a GPU what the whole device had in use.
    process_baseline_bytes: int | None = None
    request_peak_bytes: int | None = None
    transcripts: tuple[Transcript, ...] = ()

    @property
    def memory_bytes(self) -> int | None:
        """What the backend's libraries, its weights and its work took at most."""
        if self.request_peak_bytes is None or self.process_baseline_bytes is None:
            return None
        return self.request_peak_bytes - self.process_baseline_bytes


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same files through every backend."""

    model: str
    weights: str
    device: str
    warning: str
    files: tuple[HeardFile, ...]
    #: One line for each file that cannot be transcribed.
    left_out: tuple[str, ...]
    backends: tuple[BackendResult, ...]

    @property
    def ran(self) -> list[BackendResult]:
        return [one for one in self.backends if not one.reason]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; bytes and seconds."""
        return asdict(self)


def compare_backends(
    files: Sequence[str | Path],
    *,
    model: str,
    language: str,
    weights: str | Path | None,
    device: str,
    listener: Callable[[str], None],
    fetching: Listener | None,
) -> Comparison:
    """Transcribe each file through every backend that is installed.

    `weights` is a folder in hub format, which all of them read; without one the hub's is fetched,
    once. `language` '' is detected. Files, names and weights are checked before anything is loaded:
    `AudioError` where no file can be used, `ParameterError`, `WeightsError`. `listener` is told
    each backend before it begins, `fetching` where a download stands.
    """
    recordings, left_out = _read_all(files)
    options = TranscribeOptions(language=catalog.language_for(_whisper(model), language))
    found = resolve_device(device)
    if not found.keeps_times:
        raise ParameterError(f"a simulated card says no words ({NO_TIMES}); use cpu or cuda")
    shipped = catalog.whisper(model).shipped
    told = str(weights or "pocket")
    if not weights and not shipped:
        released = ModelSpec(model=model, backend="transformers", weights="hub", dtype="float32")
        (checkpoint,) = fetch([released], listener=fetching)
        weights, told = checkpoint.folder, f"{checkpoint.repository} {checkpoint.commit[:12]}"
    specs = {name: _spec(model, name, weights, found) for name in catalog.BACKENDS}
    lacks = at_hand(list(specs.values()))
    heard = [recording.samples for recording in recordings.values()]
    results = []
    for name, spec in specs.items():
        if name in lacks:
            results.append(BackendResult(backend=name, dtype=spec.dtype, reason=lacks[name]))
            continue
        listener(name)
        results.append(_in_process(spec, found, heard, options))
    return Comparison(
        model=model,
        weights=told,
        device=found.name,
        warning=catalog.pocket_words(model),
        files=tuple(
            HeardFile(path=path, audio_s=one.seconds, note=one.note)
            for path, one in recordings.items()
        ),
        left_out=left_out,
        backends=tuple(results),
    )


def _read_all(files: Sequence[str | Path]) -> tuple[dict[str, Recording], tuple[str, ...]]:
    """What can be transcribed, and why the others cannot; `AudioError` where none can."""
    recordings: dict[str, Recording] = {}
    left_out = []
    for path in files:
        try:
            recordings[printable(str(path))] = _read(Path(path).expanduser())
        except AudioError as error:
            left_out.append(str(error))
    if left_out and not recordings:
        raise AudioError("; ".join(left_out))
    if not recordings:
        raise ParameterError("no file was named; name one or more audio files")
    return recordings, tuple(left_out)


def _read(path: Path) -> Recording:
    if path.is_dir():
        raise AudioError(f"{path} is a folder; name the files in it, as {path}/*")
    return check_clip(path, max_s=math.inf)


def _whisper(model: str) -> str:
    return catalog.whisper(model).name


def _spec(model: str, backend: str, weights: str | Path | None, device: Device) -> ModelSpec:
    return ModelSpec(
        model=model,
        backend=backend,
        weights="local" if weights else "pocket",
        dtype=resolve_dtype("auto", backend=backend, device=device, role="asr"),
        path=str(weights or ""),
        # the models that ship with the package never learned timestamps, wherever they lie
        asr_decoding="plain" if catalog.whisper(model).shipped else "auto",
    )


def at_hand(specs: Sequence[ModelSpec]) -> dict[str, str]:
    """Why a backend cannot be used here (not installed, another model's weights), by its name; the
    first such error where none can."""
    lacks: dict[str, HybridlabError] = {}
    for spec in specs:
        try:
            check_source(spec)
        except HybridlabError as error:
            lacks[spec.backend] = error
    if len(lacks) == len(specs):
        raise next(iter(lacks.values()))
    return {name: str(error) for name, error in lacks.items()}


def _in_process(
    spec: ModelSpec, device: Device, heard: Sequence[Samples], options: TranscribeOptions
) -> BackendResult:
    """The backend's result; also one that ran out of memory, was killed or failed has one."""
    try:
        with Worker(spec.backend) as worker:
            return worker.call(_transcribed, spec, device.name, list(heard), options)
    except (HybridlabError, MemoryError) as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return BackendResult(backend=spec.backend, dtype=spec.dtype, reason=last)


# -------------------------------------------------------------------------- inside the process


def _transcribed(
    spec: ModelSpec, device_name: str, heard: Sequence[Samples], options: TranscribeOptions
) -> BackendResult:
    from hybridlab.experiments.case_worker import quiet_libraries
    from hybridlab.models.factory import make_asr

    quiet_libraries()
    device = resolve_device(device_name)
    device.release()
    baseline_bytes = _held_bytes(device)
    asr = make_asr(spec, device)
    began = time.perf_counter()
    asr.load()
    device.synchronize()
    load_s = time.perf_counter() - began
    device.release()  # what was read and converted is not what transcribing takes
    with _peak_bytes(device) as peak_bytes:
        first = heard[0][: round(WARM_UP_S * catalog.SAMPLE_RATE_HZ)]
        asr.transcribe([first], TranscribeOptions(max_new_tokens=WARM_UP_TOKENS))
        transcripts = tuple(_timed(asr, device, samples, options) for samples in heard)
        request_peak_bytes = peak_bytes()
    return BackendResult(
        backend=spec.backend,
        dtype=spec.dtype,
        load_s=load_s,
        process_baseline_bytes=baseline_bytes,
        request_peak_bytes=request_peak_bytes,
        transcripts=transcripts,
    )


def _timed(
    asr: SpeechRecognizer, device: Device, samples: Samples, options: TranscribeOptions
) -> Transcript:
    began = time.perf_counter()
    (said,) = asr.transcribe([samples], options)
    device.synchronize()
    seconds = time.perf_counter() - began
    return Transcript(
        text=said.text,
        language=said.language,
        finish_reason=said.finish_reason,
        seconds=seconds,
        rtfx=samples.size / catalog.SAMPLE_RATE_HZ / seconds,
    )


def _held_bytes(device: Device) -> int:
    """Of a GPU what all have in use, since no allocator here sees CTranslate2's memory."""
    if device.is_host:
        return device.used_bytes()
    found = device.total_used_bytes()
    if found.value is None:
        raise UnavailableError(f"{device.name} does not tell its memory: {found.reason}")
    return int(found.value)


@contextmanager
def _peak_bytes(device: Device) -> Iterator[Callable[[], int]]:
    """The highest `_held_bytes` inside: of a host the kernel's own, of a GPU as it is sampled."""
    if device.is_host:
        device.reset_peak()
        yield device.peak_bytes
        return
    with Sampler(lambda: _held_bytes(device)) as sampler:
        yield lambda: max(sample.n_bytes for sample in sampler.samples)
