"""Whisper through faster-whisper (CTranslate2), where the extra `ct2` is installed."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hybridlab.audio import Samples
from hybridlab.devices import CpuDevice
from hybridlab.devices.nvml import nvml_facts
from hybridlab.errors import UnavailableError
from hybridlab.models.base import GenerationResult, ModelSpec, PhaseSpan
from hybridlab.models.known_answer import difference, transcripts
from hybridlab.models.local_model import LocalModel
from hybridlab.models.whisper_transformers import WhisperTransformers
from hybridlab.models.windowed import WindowedRecognizer

_COMPUTE_TYPES = {"float32": "float32", "float16": "float16", "int8": "int8"}
#: The small model that ships with hybridlab, in which host and card have to say the same.
PROBED = "pocket-m"


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
            "compute_type": _COMPUTE_TYPES[self.spec.dtype],
            "local_files_only": False,
        }
        if isinstance(self.device, CpuDevice) and self.device.concurrent_models > 1:
            options["cpu_threads"] = self.device.compute_threads
        if self.spec.weights == "hub":
            return WhisperModel(self.spec.model, **options)
        with tempfile.TemporaryDirectory(prefix="hybridlab-ct2-") as folder:
            return WhisperModel(str(self.converted(Path(folder))), **options)

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
        kept = _COMPUTE_TYPES[self.spec.dtype]
        known = ctranslate2.get_supported_compute_types("cuda")
        if kept not in known:
            raise UnavailableError(
                f"faster-whisper does not compute in {kept} on {self.device.title()}; choose one "
                f"of: {', '.join(sorted(known & set(_COMPUTE_TYPES)))}"
            )

    def converted(self, folder: Path) -> Path:
        """CTranslate2's own format, made from a folder in hub format."""
        from ctranslate2.converters import TransformersConverter

        source, target = folder / "source", folder / "converted"
        model = WhisperTransformers(replace(self.spec, dtype="float32"), CpuDevice())
        model.load()
        model.save(source)
        model.unload()
        TransformersConverter(
            str(source), copy_files=["preprocessor_config.json", "tokenizer.json"]
        ).convert(str(target))
        return target

    def _transcribe_windows(
        self, pieces: list[Samples], language: str, max_new_tokens: int, beams: int
    ) -> list[GenerationResult]:
        return [self._window(piece, language, max_new_tokens, beams) for piece in pieces]

    def _window(
        self, samples: Samples, language: str, max_new_tokens: int, beams: int
    ) -> GenerationResult:
        fixed = {} if self.spec.has_text else {"suppress_tokens": [-1, 50_257]}
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
    program is started in the life of this process."""
    with tempfile.TemporaryDirectory(prefix="hybridlab-ct2-") as folder:
        reason = difference(transcripts(_model_in(Path(folder)), "cpu", "cuda"))
    if not reason:
        return ""
    driver = nvml_facts().get("driver")
    return f"{reason} (ctranslate2 {version('ctranslate2')}, driver {driver or 'unknown'})"


def _model_in(folder: Path) -> Path:
    spec = ModelSpec(model=PROBED, backend="faster-whisper", weights="pocket", dtype="float32")
    return WhisperCtranslate2(spec, CpuDevice()).converted(folder)
