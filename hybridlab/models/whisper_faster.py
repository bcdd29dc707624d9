"""Whisper through faster-whisper (CTranslate2), where the extra `ct2` is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.audio import Samples, load_clips
from hybridlab.devices import CpuDevice
from hybridlab.devices.nvml import nvml_facts
from hybridlab.errors import UnavailableError
from hybridlab.models.base import GenerationResult, ModelSpec, PhaseSpan, WindowedRecognizer
from hybridlab.models.ctranslate2_folder import is_ctranslate2
from hybridlab.models.local_model import LocalModel
from hybridlab.models.processors import whisper_tokenizer
from hybridlab.models.source import folder_or_id
from hybridlab.models.whisper_transformers import WhisperTransformers

NAME = "faster-whisper"
#: What the library reads of a folder beside CTranslate2's own files.
PROCESSOR_FILES = ("preprocessor_config.json", "tokenizer.json")
#: The small model that ships with hybridlab, in which host and card have to say the same, and the
#: seconds after which a card that has not answered will not.
PROBED, PROBE_TIMEOUT_S = "pocket-m", 120.0


class WhisperCtranslate2(LocalModel, WindowedRecognizer):
    """Weights live outside torch, so `module()` is None; windows run one after the other."""

    def module(self) -> None:
        return None

    def _build(self) -> Any:
        if not self.device.is_host:
            self._check_card()
        from faster_whisper import WhisperModel

        options: dict[str, Any] = {
            "device": self.device.kind,
            "compute_type": self.spec.dtype,
            "local_files_only": False,
        }
        if isinstance(self.device, CpuDevice) and self.device.concurrent_models > 1:
            options["cpu_threads"] = self.device.compute_threads
        if self.spec.weights == "hub":
            return WhisperModel(self.spec.model, **options)
        with tempfile.TemporaryDirectory(prefix="hybridlab-ct2-") as folder:
            return WhisperModel(str(self._model_folder(Path(folder))), **options)

    def _model_folder(self, scratch: Path) -> Path:
        """The reader's own folder in CTranslate2's format as it is, or what `converted` makes."""
        source = Path(folder_or_id(self.spec)) if self.spec.weights == "local" else None
        if source is None or not is_ctranslate2(source):
            return self.converted(scratch)
        return self._with_processor(source, scratch)

    def _with_processor(self, source: Path, scratch: Path) -> Path:
        """This folder, or links to its files beside the tokenizer and the features' description
        that it lacks: the library would ask the hub for the one, and take 80 mel bins for the
        other."""
        features, tokenizer = PROCESSOR_FILES
        lacking = [name for name in PROCESSOR_FILES if not (source / name).is_file()]
        if not lacking:
            return source
        for file in source.iterdir():
            (scratch / file.name).symlink_to(file.resolve())
        known = catalog.whisper(self.spec.model)
        if features in lacking:
            from transformers import WhisperFeatureExtractor

            extractor = WhisperFeatureExtractor(feature_size=known.encoder.mel_bins)
            extractor.to_json_file(str(scratch / features))
        if tokenizer in lacking:
            made = whisper_tokenizer(known.vocab_size)
            made.backend_tokenizer.save(str(scratch / tokenizer))
        return scratch

    @property
    def _end_of_text(self) -> int:
        end: int = self._model.hf_tokenizer.token_to_id("<|endoftext|>")
        return end

    def _check_card(self) -> None:
        """`UnavailableError` where CTranslate2 cannot compute on the card, or not in this dtype: it
        looks for CUDA 12's cuBLAS at the first encoder pass, whichever CUDA torch brought."""
        import ctranslate2

        reason = unusable_on_card()
        if reason:
            raise UnavailableError(
                f"faster-whisper cannot compute on {self.device.title()}: {reason}; `hybridlab "
                "doctor` says what it lacks, or choose openai-whisper or transformers"
            )
        own, known = catalog.backend(NAME), ctranslate2.get_supported_compute_types("cuda")
        if self.spec.dtype not in known:
            raise UnavailableError(
                f"faster-whisper does not compute in {self.spec.dtype} on {self.device.title()}; "
                f"choose one of: {', '.join(sorted(known.intersection(own.dtypes)))}"
            )

    def converted(self, folder: Path) -> Path:
        """CTranslate2's own format, made from a folder in hub format."""
        from ctranslate2.converters import TransformersConverter

        source, target = folder / "source", folder / "converted"
        model = WhisperTransformers(replace(self.spec, dtype="float32"), CpuDevice())
        model.load()
        model.save(source)
        model.unload()
        TransformersConverter(str(source), copy_files=list(PROCESSOR_FILES)).convert(str(target))
        return target

    def _transcribe_windows(
        self, pieces: list[Samples], language: str, max_new_tokens: int, beams: int
    ) -> list[GenerationResult]:
        return [self._window(piece, language, max_new_tokens, beams) for piece in pieces]

    def _window(
        self, samples: Samples, language: str, max_new_tokens: int, beams: int
    ) -> GenerationResult:
        fixed = {} if self.spec.has_text else {"suppress_tokens": [-1, self._end_of_text]}
        started = self.device.stamp()
        self.tell_phase("decode")
        segments, _ = self._model.transcribe(
            samples,
            language=language or None,
            beam_size=beams,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            max_new_tokens=max_new_tokens,
            **fixed,
        )
        found = list(segments)  # the generator does the work
        start_s, end_s = map(self.device.seconds, (started, self.device.stamp()))
        self.tell_phase("")
        self.spans.append(PhaseSpan(self.name, "decode", start_s, end_s))
        tokens = tuple(token for segment in found for token in segment.tokens)
        return GenerationResult(" ".join(segment.text.strip() for segment in found), tokens)


@cache
def unusable_on_card() -> str:
    """Why faster-whisper cannot compute on the card, naming wheel and driver; '' where it can. One
    program is started in the life of this process: a library that CTranslate2 does not find may
    end the process that asks for it."""
    spec = ModelSpec(model=PROBED, backend=NAME, weights="pocket", dtype="float32")
    with tempfile.TemporaryDirectory(prefix="hybridlab-ct2-") as folder:
        model = WhisperCtranslate2(spec, CpuDevice()).converted(Path(folder))
        found = transcripts(model, "cpu", "cuda")
    if isinstance(found, str):
        reason = found
    elif found[0] and found[0] == found[1]:
        return ""
    else:
        reason = f"it transcribes {found[1]!r} where the host transcribes {found[0]!r}"
    driver = nvml_facts().get("driver")
    return f"{reason} (ctranslate2 {version('ctranslate2')}, driver {driver or 'unknown'})"


def transcripts(model: Path, *devices: str) -> list[str] | str:
    """What a program of its own transcribes on each of the devices, or how it ended."""
    command = [sys.executable, "-m", "hybridlab.models.whisper_faster", str(model), *devices]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {PROBE_TIMEOUT_S:g} s"
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
    said: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return said


def main(folder: str, *devices: str) -> None:
    """Print the first clip's transcript on each of the devices."""
    from faster_whisper import WhisperModel

    samples, said = load_clips()[0].samples(), []
    for device in devices:
        model = WhisperModel(folder, device=device, compute_type="float32", local_files_only=True)
        segments, _ = model.transcribe(
            samples, language="en", beam_size=1, temperature=0.0, without_timestamps=True
        )
        said.append(" ".join(segment.text.strip() for segment in segments))
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
