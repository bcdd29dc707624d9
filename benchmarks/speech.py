"""The lab's transcripts of real and synthesised speech beside those that each library makes by its
own `transcribe`, as JSON on stdout: `python -m benchmarks.speech [--files librivox --backends
transformers --turns 1 --weights FOLDER] > outputs/reference/benchmarks/speech.json`.

Released weights of Whisper base in float32 on the CPU, fetched where they are not there yet. Words
are compared after Whisper's own normaliser. Each library has its defaults: openai-whisper's
`transcribe`, transformers' `generate` with timestamps over the whole recording, faster-whisper's
`transcribe` with its five beams and with one; the lab has one, and beside faster-whisper five as
well; `pooled` are the errors of all long recordings together. A ratio of times is one of turns in
which timestamps and plain decoding transcribe the same recordings.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import interval, options, publish, ratios, summary
from hybridlab import catalog
from hybridlab.devices import CpuDevice
from hybridlab.models import (
    GenerationResult,
    ModelSpec,
    SpeechRecognizer,
    TranscribeOptions,
    make_asr,
)
from tools import real_speech, real_whisper
from tools.real_speech import Recording

#: Read or synthesised without long pauses: what a ratio of times is taken of.
DENSE = ("librivox", "espeak-en")
NON_SPEECH_S = 20.0

#: By name, what turns a recording into a transcript.
Ways = dict[str, Callable[[Recording], GenerationResult | str]]

# ---------------------------------------------------------------- each library's own transcription


def openai_transcribe(model: Any, recording: Recording) -> str:
    return str(model.transcribe(recording.samples, language=recording.language, fp16=False)["text"])


def faster_transcribe(model: Any, recording: Recording, **given: Any) -> str:
    segments, _ = model.transcribe(recording.samples, language=recording.language, **given)
    return " ".join(segment.text.strip() for segment in segments)


def transformers_transcribe(asr: Any, recording: Recording) -> str:
    """`generate` over the features of the whole recording, window after window."""
    processor, window = asr._processor, catalog.WINDOW_S * catalog.SAMPLE_RATE_HZ
    inputs = processor.feature_extractor(
        [recording.samples],
        sampling_rate=catalog.SAMPLE_RATE_HZ,
        return_tensors="pt",
        return_attention_mask=True,
        truncation=False,
        padding="longest" if recording.samples.size > window else "max_length",
    )
    found = asr.module().generate(
        inputs.input_features,
        attention_mask=inputs.attention_mask,
        language=recording.language,
        task="transcribe",
        return_timestamps=True,
    )
    return str(processor.batch_decode(found, skip_special_tokens=True)[0])


def libraries(asr: SpeechRecognizer) -> Ways:
    """By name, the ways in which the library behind a loaded recogniser transcribes by itself; the
    first is its default."""
    backend = asr.spec.backend
    model = asr._model  # type: ignore[attr-defined]
    if backend == "openai-whisper":
        return {"transcribe": functools.partial(openai_transcribe, model)}
    if backend == "faster-whisper":
        return {
            "transcribe, beam 5": functools.partial(faster_transcribe, model),
            "transcribe, beam 1": functools.partial(faster_transcribe, model, beam_size=1),
        }
    return {"generate": functools.partial(transformers_transcribe, asr)}


# ---------------------------------------------------------------------------------------- the lab


def loaded(backend: str, folder: Path, **fields: Any) -> SpeechRecognizer:
    """Whisper base from this folder in float32 on the CPU; `fields` are of its `ModelSpec`."""
    spec = ModelSpec(
        model=real_whisper.MODEL.name,
        backend=backend,
        weights="local",
        dtype="float32",
        path=str(folder),
        **fields,
    )
    model = make_asr(spec, CpuDevice())
    model.load()
    return model


def lab_transcribe(asr: SpeechRecognizer, recording: Recording, **given: Any) -> GenerationResult:
    """In the recording's own language; `given` are of `TranscribeOptions`."""
    asked = TranscribeOptions(**{"language": recording.language, **given})
    (result,) = asr.transcribe([recording.samples], asked)
    return result


# -------------------------------------------------------------------------------------- comparing


def errors(recordings: Sequence[Recording], transcripts: Sequence[str]) -> dict[str, Any]:
    """Of all of them together."""
    found = [one.alignment(said) for one, said in zip(recordings, transcripts, strict=True)]
    kinds = {
        kind: sum(getattr(one, kind) for one in found)
        for kind in ("substitutions", "deletions", "insertions")
    }
    words = sum(one.hits + one.substitutions + one.deletions for one in found)
    return {"wer": sum(kinds.values()) / words, "words": words, **kinds}


def compared(ways: Ways, recordings: Sequence[Recording]) -> dict[str, Any]:
    """What each way makes of the same recordings."""
    rows = {}
    for name, way in ways.items():
        torch.manual_seed(0)  # a library that asks again samples
        began = time.perf_counter()
        said = [way(one) for one in recordings]
        took_s = time.perf_counter() - began
        texts = [one if isinstance(one, str) else one.text for one in said]
        rows[name] = {
            "seconds": round(took_s, 2),
            **errors(recordings, texts),
            "transcripts": texts,
        }
        told = [one for one in said if isinstance(one, GenerationResult)]
        if told:
            rows[name]["tokens"] = sum(len(one.tokens) for one in told)
            rows[name]["finish_reasons"] = [one.finish_reason for one in told]
    return rows


def pooled(recordings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By name of a way, the share of words wrong and their number over these recordings."""
    rows: dict[str, Any] = {}
    for way in next(iter(recordings.values()), {}):
        own = [ways[way] for ways in recordings.values()]
        words = sum(row["words"] for row in own)
        wrong = sum(row["substitutions"] + row["deletions"] + row["insertions"] for row in own)
        rows[way] = {"wer": wrong / words, "words": words}
    return rows


def cost(
    asr: SpeechRecognizer, plain: SpeechRecognizer, recordings: Sequence[Recording], turns: int
) -> dict[str, Any]:
    """By recording: errors, tokens and seconds of decoding with timestamps and of plain decoding,
    and the ratio of the seconds; `together`: that of all of them."""
    rows: dict[str, Any] = {}
    totals = np.zeros((2, turns))
    for recording in recordings:
        own, took = rows.setdefault(recording.name, {}), np.zeros((2, turns))
        for turn in range(turns):
            for n, (name, model) in enumerate((("timestamps", asr), ("plain", plain))):
                began = time.perf_counter()
                said = lab_transcribe(model, recording)
                took[n, turn] = time.perf_counter() - began
                own[name] = {"tokens": len(said.tokens), **errors([recording], [said.text])}
        own |= {"seconds": dict(zip(own, map(summary, took.tolist()), strict=True))} | _ratio(took)
        totals += took
    return rows | {"together": _ratio(totals)}


def _ratio(took: np.ndarray) -> dict[str, Any]:
    timestamps, plain = took.tolist()
    return interval("timestamps_over_plain", ratios(timestamps, plain))


def words_invented(ways: Ways) -> dict[str, dict[str, str]]:
    """What each way hears where nobody speaks, by kind of sound; kinds without a word are left
    out."""
    found: dict[str, dict[str, str]] = {}
    for name, way in ways.items():
        torch.manual_seed(0)
        found[name] = {}
        for kind in real_speech.NON_SPEECH:
            recording = real_speech.of_noise(kind, NON_SPEECH_S)
            said = way(recording)
            text = said if isinstance(said, str) else said.text
            if recording.normalised(text):
                found[name][kind] = text
    return found


def measured(backend: str, folder: Path, files: Sequence[str], turns: int) -> dict[str, Any]:
    asr = loaded(backend, folder)
    ways: Ways = {"lab": functools.partial(lab_transcribe, asr), **libraries(asr)}
    if backend == "faster-whisper":
        ways["lab, beam 5"] = functools.partial(lab_transcribe, asr, beams=5)
    results: dict[str, Any] = {"recordings": {}}
    for name in files:
        print(f"{backend}: {name}", file=sys.stderr)
        if name == NON_SPEECH:
            results["words_invented"] = words_invented(ways)
            continue
        if name == COST:
            plain = loaded(backend, folder, asr_decoding="plain")
            dense = [long_recordings()[one] for one in DENSE]
            results["cost"] = cost(asr, plain, dense, turns)
            continue
        spoken = real_speech.librivox() if name == CLIPS else [long_recordings()[name]]
        results["recordings"][name] = compared(ways, spoken)
    results["pooled"] = pooled({k: v for k, v in results["recordings"].items() if k != CLIPS})
    return results


#: What `--files` may name beside the long recordings.
CLIPS, NON_SPEECH, COST = "librivox-clips", "non-speech", "cost"


def long_recordings() -> dict[str, Recording]:
    return {one.name: one for one in real_speech.long_recordings()}


def main() -> None:
    real_speech.check_packages()
    known = [CLIPS, *long_recordings(), NON_SPEECH, COST]
    given = options(
        __doc__,
        files=(known, known),
        backends=(list(catalog.BACKENDS), list(catalog.BACKENDS)),
        turns=3,
        weights="",
    )
    folder = Path(given.weights) if given.weights else real_whisper.fetch()
    publish(
        model="base",
        dtype="float32",
        device=CpuDevice().title(),
        threads=torch.get_num_threads(),
        audio_s={name: round(one.audio_s, 1) for name, one in long_recordings().items()},
        backends={
            backend: measured(backend, folder, given.files, given.turns)
            for backend in given.backends
        },
    )


if __name__ == "__main__":
    main()
