"""Models that are called over HTTP: clients of `hybridlab serve`, straight or through another."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.devices import Device
from hybridlab.errors import UnavailableError
from hybridlab.models.base import (
    AudioLanguageModel,
    GenerationResult,
    Model,
    ModelSpec,
    PhaseSpan,
    SpeechRecognizer,
)
from hybridlab.models.server_process import FrontServer, Server
from hybridlab.models.transcription import DEFAULT_OPTIONS, Segment, TranscribeOptions, Word

TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"
COMPLETIONS = "/v1/chat/completions"


def command(
    *, llm: ModelSpec | None = None, asr: ModelSpec | None = None, device: str
) -> list[str]:
    """Options of `hybridlab serve` for these models. Requests go through one at a time, as the
    other variants have them."""
    options = {"device": device, "port": "0", "host": "127.0.0.1", "fallback": "none", "batch": "1"}
    if llm is not None:
        if (llm.decoding, llm.load_path) != ("loop", "direct"):
            raise UnavailableError(
                "a server has decoding loop and load_path direct; use these, or the variant "
                "processes"
            )
        options |= _options("llm", llm) | {"seed": str(llm.seed), "attention": llm.attention}
    if asr is not None:
        options |= _options("asr", asr) | {"seed": str(asr.seed - 1)}
        options |= {"asr-backend": asr.backend, "asr-decoding": asr.asr_decoding}
    if llm is not None and asr is not None:
        options |= {"strategy": "parallel", "variant": "processes"}
    else:
        options["only"] = "asr" if llm is None else "llm"
    return [f"--{name}={value}" for name, value in options.items()]


def _options(role: str, spec: ModelSpec) -> dict[str, str]:
    return {
        f"{role}-model": spec.model,
        f"{role}-weights": spec.weights,
        f"{role}-path": spec.path,
        f"{role}-revision": spec.revision,
        f"{role}-dtype": spec.dtype,
    }


def server_timing(header: str) -> dict[str, float]:
    """Seconds by name of the header Server-Timing. A server tells `wait`, `work` and its `total`;
    one in front passes these on, with the other's total as `upstream`, and tells its own."""
    found = re.findall(r"(\w+);dur=([\d.]+)", header)
    return {name: float(milliseconds) / 1000 for name, milliseconds in found}


def transcription_path(options: TranscribeOptions) -> str:
    """The route that is asked."""
    return TRANSLATIONS if options.task == "translate" else TRANSCRIPTIONS


def transcription_form(model: str, options: TranscribeOptions) -> dict[str, Any]:
    """The fields beside the file. Raises UnavailableError for what no field asks for."""
    if options.beams != 1:
        raise UnavailableError("a server transcribes with its own beams; start it with --beams")
    fields: dict[str, Any] = {"model": model, "language": options.language or "auto"}
    if options.max_new_tokens is not None:
        fields["max_tokens"] = str(options.max_new_tokens)
    if options.prompt:
        fields["prompt"] = options.prompt
    if options.words:
        fields["timestamp_granularities[]"] = ["segment", "word"]
    return fields | {
        "temperature": f"{options.temperature:g}",
        "response_format": "verbose_json",
    }


def transcript_of(body: Mapping[str, Any]) -> GenerationResult:
    """A transcript as the server's verbose_json tells it. `KeyError` and the like for a body that
    is none."""
    segments = tuple(
        Segment(
            float(one["start"]),
            float(one["end"]),
            str(one["text"]),
            tuple(one["tokens"]),
            temperature=float(one["temperature"]),
            avg_logprob=one["avg_logprob"],
            no_speech_prob=one["no_speech_prob"],
            compression_ratio=one["compression_ratio"],
            words=tuple(
                Word(
                    str(word["word"]),
                    float(word["start"]),
                    float(word["end"]),
                    float(word["probability"]),
                )
                for word in one.get("words", ())
            ),
        )
        for one in body["segments"]
    )
    return GenerationResult(
        str(body["text"]),
        tuple(body["token_ids"]),
        body["finish_reason"],
        segments=segments,
        language=str(body["language"] or ""),
        audio_s=float(body["duration"]),
    )


class OverHttp(Model):
    """The caller's side. A call leaves spans that are laid end to end: `http` (encoding, upload,
    parsing, decoding and the way back), `gateway` where there is one, `wait` in the server's queue,
    and `work` of the model; the way back, which is short, is counted in the first."""

    def __init__(
        self, spec: ModelSpec, device: Device, server: Server, gateway: FrontServer | None = None
    ) -> None:
        super().__init__(spec, device)
        self.server = server
        self.gateway = gateway
        self._weights_bytes: int | None = None
        self._loaded = False

    @property
    def loaded(self) -> bool:
        return self._loaded

    def load(self) -> None:
        import httpx

        self.server.enter(self.name)
        if self.gateway is not None:
            self.gateway.enter()
        self._weights_bytes = self.server.weights_bytes(self.name)
        self._client = httpx.Client(timeout=None, trust_env=False)
        self._loaded = True

    def unload(self) -> None:
        self._client.close()
        if self.gateway is not None:
            self.gateway.stop()
        self.server.leave(self.name)
        self._loaded = False

    def module(self) -> None:
        return None  # torch holds it in another process

    def weights_bytes(self) -> int | None:
        return self._weights_bytes if self._loaded else None

    def _post(self, path: str, began_s: float, **content: Any) -> dict[str, Any]:
        self.tell_phase("http")
        server = self.gateway or self.server
        response = self._client.post(f"{server.url}{path}", **content)
        body: dict[str, Any] = response.json()
        if response.is_error:
            message = body["error"]["message"]
            raise RuntimeError(f"{path} answered {response.status_code}: {message}")
        self._write_spans(began_s, server_timing(response.headers["server-timing"]))
        self.tell_phase("")
        return body

    def _write_spans(self, began_s: float, timing: Mapping[str, float]) -> None:
        """A server in front adds its own work and the second upload: its `gateway`."""
        ended_s = time.perf_counter()
        phases = {"wait": timing["wait"], "work": timing["work"]}
        if "upstream" in timing:
            phases = {"gateway": max(0.0, timing["total"] - timing["upstream"]), **phases}
        start_s = ended_s - sum(phases.values())
        self.spans.append(PhaseSpan(self.name, "http", began_s, start_s))
        for phase, seconds in phases.items():
            self.spans.append(PhaseSpan(self.name, phase, start_s, start_s + seconds))
            start_s += seconds


class HttpRecognizer(OverHttp, SpeechRecognizer):
    """A Whisper behind `/v1/audio/transcriptions`."""

    def transcribe(
        self, batch: Sequence[Samples], options: TranscribeOptions = DEFAULT_OPTIONS
    ) -> list[GenerationResult]:
        return [self._transcript(samples, options) for samples in batch]

    def _transcript(self, samples: Samples, options: TranscribeOptions) -> GenerationResult:
        began = time.perf_counter()
        fields = transcription_form(self.name, options)
        sound = {"file": ("sound.wav", wav(samples))}
        body = self._post(transcription_path(options), began, data=fields, files=sound)
        return transcript_of(body)


class HttpLanguageModel(HttpRecognizer, AudioLanguageModel):
    """A Voxtral behind `/v1/chat/completions`."""

    def answer(
        self, batch: Sequence[Samples], questions: Sequence[str], *, max_new_tokens: int = 200
    ) -> list[GenerationResult]:
        pairs = zip(batch, questions, strict=True)
        return [self._reply(samples, question, max_new_tokens) for samples, question in pairs]

    def _reply(self, samples: Samples, question: str, max_new_tokens: int) -> GenerationResult:
        began = time.perf_counter()
        content = chat_body(self.name, wav(samples), question, max_tokens=max_new_tokens)
        headers = {"Content-Type": "application/json"}
        (choice,) = self._post(COMPLETIONS, began, content=content, headers=headers)["choices"]
        return GenerationResult(
            choice["message"]["content"], tuple(choice["token_ids"]), choice["finish_reason"]
        )


def wav(samples: Samples) -> bytes:
    """A file that the server decodes to the very same values: of 16 bits where those are enough, as
    for whatever was read from such a file, else of float32."""
    import soundfile

    steps = samples * np.float32(32768)
    whole = np.array_equal(steps, np.rint(steps)) and np.all((steps >= -32768) & (steps <= 32767))
    content, subtype = (steps.astype(np.int16), "PCM_16") if whole else (samples, "FLOAT")
    buffer = io.BytesIO()
    soundfile.write(buffer, content, catalog.SAMPLE_RATE_HZ, format="WAV", subtype=subtype)
    return buffer.getvalue()


def chat_body(model: str, sound: bytes, question: str, **options: Any) -> bytes:
    """The body of a chat completion. The sound is put in as it is: to look for what JSON would have
    to escape takes longer than all the rest, and base64 has nothing of that."""
    content = [
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "text", "text": question},
    ]
    messages = [{"role": "user", "content": content}]
    body = json.dumps({"messages": messages, "model": model, **options})
    head, mark, tail = body.encode().partition(b'"data": "')
    return b"".join((head, mark, base64.b64encode(sound), tail))
