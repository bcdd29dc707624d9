"""Whisper through faster-whisper (CTranslate2), where the extra `ct2` is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlab import catalog
from hybridlab.audio import Samples, load_clips
from hybridlab.devices import CpuDevice
from hybridlab.devices.nvml import nvml_facts
from hybridlab.errors import UnavailableError
from hybridlab.models.base import ModelSpec, PhaseSpan
from hybridlab.models.ctranslate2_folder import is_ctranslate2
from hybridlab.models.local_model import LocalModel
from hybridlab.models.passes import SEED, Pass, begins_segment
from hybridlab.models.processors import MOST_INITIAL_TIMESTAMP, suppressed, whisper_tokenizer
from hybridlab.models.source import folder_of
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.models.weights import one_line_errors
from hybridlab.models.whisper_transformers import WhisperTransformers
from hybridlab.models.windowed import WindowedRecognizer

if TYPE_CHECKING:
    from whisper.timing import WordTiming

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
            "local_files_only": True,
        }
        if isinstance(self.device, CpuDevice) and self.device.concurrent_models > 1:
            options["cpu_threads"] = self.device.compute_threads
        with (
            tempfile.TemporaryDirectory(prefix="hybridlab-ct2-") as folder,
            one_line_errors(self.spec),
        ):
            return WhisperModel(str(self._model_folder(Path(folder))), **options)

    def _model_folder(self, scratch: Path) -> Path:
        """A folder in CTranslate2's format as it is, or what `converted` makes of another."""
        source = folder_of(self.spec) if self.spec.weights in ("hub", "local") else None
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

    @contextmanager
    def _call(self) -> Iterator[None]:
        yield
        self.tell_phase("")

    @contextmanager
    def _phase(self, phase: str) -> Iterator[None]:
        started = self.device.stamp()
        self.tell_phase(phase)
        yield
        start_s, end_s = map(self.device.seconds, (started, self.device.stamp()))
        self.spans.append(PhaseSpan(self.name, phase, start_s, end_s))

    def _encode(self, pieces: list[Samples], *, beams: int = 1) -> list[Any]:
        with self._phase("encode"):
            return [self._encoded(piece) for piece in pieces]

    def _encoded(self, samples: Samples) -> Any:
        """One window, padded with zeros in the log-mel domain as openai-whisper pads."""
        from faster_whisper.audio import pad_or_trim

        return self._model.encode(pad_or_trim(self._model.feature_extractor(samples)))

    def _detect(self, encoded: list[Any], row: int) -> str:
        ((likeliest, _), *_) = self._model.model.detect_language(encoded[row])[0]
        return str(likeliest[2:-2])

    def _decode(
        self,
        encoded: list[Any],
        rows: list[int],
        languages: list[str],
        options: TranscribeOptions,
        *,
        ends: list[int] | None,
    ) -> list[Pass]:
        with self._phase("decode"):
            found = []
            for n, (row, language) in enumerate(zip(rows, languages, strict=True)):
                prompt = self._prompt(language, options, timestamps=ends is not None)
                said = self._decoded(encoded[row], prompt, options)
                if ends is not None and begins_segment(said.tokens, self._first_timestamp, ends[n]):
                    said = self._gone_on(encoded[row], prompt, said, options)
                found.append(said)
            return found

    def _gone_on(
        self, encoded: Any, prompt: list[int], said: Pass, options: TranscribeOptions
    ) -> Pass:
        """The segment that a pass began and did not say: the library takes no rules for logits, but
        nothing that begins may end at once."""
        if len(said.tokens) >= (options.max_new_tokens or 0):
            return said
        # the tokens of both, and a score of the new ones alone, as a mean over all
        both = self._decoded(encoded, [*prompt, *said.tokens], options)
        assert said.avg_logprob is not None and both.avg_logprob is not None
        before = said.avg_logprob * (len(said.tokens) + 1) / (len(both.tokens) + 1)
        return replace(both, avg_logprob=before + both.avg_logprob)

    def _decoded(self, encoded: Any, prompt: list[int], options: TranscribeOptions) -> Pass:
        import ctranslate2

        most = options.max_new_tokens or 0
        drawn: dict[str, Any] = {"beam_size": options.beams}
        if options.temperature > 0:
            ctranslate2.set_random_seed(SEED)
            drawn = {
                "beam_size": 1,
                "sampling_topk": 0,
                "sampling_temperature": options.temperature,
            }
        (result,) = self._model.model.generate(
            encoded,
            [prompt],
            # the library halves it
            max_length=2 * most,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
            max_initial_timestamp_index=MOST_INITIAL_TIMESTAMP,
            **drawn,
        )
        tokens = tuple(result.sequences_ids[0])
        # a score is the mean over the tokens, openai-whisper's counts the end among them
        avg_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        return Pass(
            tokens,
            len(tokens) < most,
            options.temperature,
            float(avg_logprob),
            float(result.no_speech_prob),
        )

    @property
    def _suppressed(self) -> list[int]:
        ids = list(suppressed(catalog.whisper(self.spec.model).vocab_size))
        return ids if self.spec.has_text else [*ids, self._tokenizer.eot]

    def _timings(
        self, encoded: list[Any], row: int, tokens: list[int], language: str, seconds: float
    ) -> list[WordTiming]:
        from faster_whisper.tokenizer import Tokenizer
        from whisper.timing import WordTiming

        known = Tokenizer(
            self._model.hf_tokenizer, self._model.model.is_multilingual, "transcribe", language
        )
        frames = round(seconds * self._model.frames_per_second)
        (found,) = self._model.find_alignment(known, [tokens], encoded[row], frames)
        return [WordTiming(**timing) for timing in found]


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
