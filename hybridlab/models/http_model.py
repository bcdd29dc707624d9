"""Models that are called over HTTP: clients of `hybridlab serve`, straight or through another."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

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


def command(
    *, llm: ModelSpec | None = None, asr: ModelSpec | None = None, device: str
) -> list[str]:
    """Options of `hybridlab serve` for these models. Requests go through one at a time, as the
    other variants have them."""
    options = {"device": device, "port": "0", "host": "127.0.0.1", "fallback": "none", "batch": "1"}
    if llm is not None:
        if (llm.attention, llm.decoding, llm.load_path) != ("auto", "loop", "direct"):
            raise UnavailableError(
                "a server has attention auto, decoding loop and load_path direct; use these, or "
                "the variant processes"
            )
        options |= _options("llm", llm) | {"seed": str(llm.seed)}
    if asr is not None:
        options |= _options("asr", asr) | {"seed": str(asr.seed - 1)}
        options["asr-backend"] = asr.backend
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
        f"{role}-dtype": spec.dtype,
    }


@dataclass(frozen=True)
class _Reply:
    body: Mapping[str, Any]
    #: What the server's own clock says, in seconds.
    queue_time_s: float
    work_s: float
    #: What a server in front adds; None where the server was asked straight.
    gateway_s: float | None

    @classmethod
    def read(cls, body: Mapping[str, Any], timing: str) -> Self:
        """`timing`: the header Server-Timing. A server tells `wait`, `work` and its `total`; one in
        front passes these on, the other's total as `upstream`, and tells its own: what it adds is
        the difference, its own work and the second upload."""
        found = re.findall(r"(\w+);dur=([\d.]+)", timing)
        seconds = {name: float(ms) / 1000 for name, ms in found}
        behind_s = seconds.get("upstream")
        added_s = None if behind_s is None else max(0.0, seconds["total"] - behind_s)
        return cls(body, seconds["wait"], seconds["work"], added_s)


class OverHttp(Model):
    """The caller's side. A call leaves spans that are laid end to end: `http` (encoding, upload,
    parsing, decoding and the way back), `gateway` where there is one, `wait` in the server's queue,
    and `work` of the tenant; the way back, which is short, is counted in the first."""

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

    def _post(self, path: str, began_s: float, **content: Any) -> _Reply:
        if self.on_phase is not None:
            self.on_phase(f"{self.name} http")
        door = self.gateway or self.server
        response = self._client.post(f"{door.url}{path}", **content)
        if response.is_error:
            said = response.json()["error"]["message"]
            raise RuntimeError(f"{path} answered {response.status_code}: {said}")
        reply = _Reply.read(response.json(), response.headers["server-timing"])
        self._write_spans(began_s, time.perf_counter(), reply)
        if self.on_phase is not None:
            self.on_phase("")
        return reply

    def _write_spans(self, began_s: float, ended_s: float, reply: _Reply) -> None:
        parts = {"gateway": reply.gateway_s, "wait": reply.queue_time_s, "work": reply.work_s}
        known = {phase: seconds for phase, seconds in parts.items() if seconds is not None}
        start = ended_s - sum(known.values())
        self.spans.append(PhaseSpan(self.name, "http", began_s, start))
        for phase, seconds in known.items():
            self.spans.append(PhaseSpan(self.name, phase, start, start + seconds))
            start += seconds


class HttpRecognizer(OverHttp, SpeechRecognizer):
    """A Whisper behind `/v1/audio/transcriptions`."""

    def transcribe(
        self,
        batch: Sequence[Samples],
        *,
        language: str = "en",
        max_new_tokens: int = 224,
        beams: int = 1,
    ) -> list[GenerationResult]:
        if beams != 1:
            raise UnavailableError("a server decodes greedily; use beams=1")
        return [self._transcript(samples, language, max_new_tokens) for samples in batch]

    def _transcript(self, samples: Samples, language: str, max_new_tokens: int) -> GenerationResult:
        began = time.perf_counter()
        fields = {
            "model": self.name,
            "language": language,
            "response_format": "verbose_json",
            "max_tokens": str(max_new_tokens),
        }
        sound = {"file": ("sound.wav", wav(samples))}
        body = self._post("/v1/audio/transcriptions", began, data=fields, files=sound).body
        tokens = [token for segment in body["segments"] for token in segment["tokens"]]
        return GenerationResult(cast(str, body["text"]), tuple(tokens))


class HttpLanguageModel(HttpRecognizer, AudioLanguageModel):
    """A Voxtral behind `/v1/chat/completions`."""

    def answer(
        self, batch: Sequence[Samples], questions: Sequence[str], *, max_new_tokens: int = 200
    ) -> list[GenerationResult]:
        pairs = zip(batch, questions, strict=True)
        return [self._reply(samples, question, max_new_tokens) for samples, question in pairs]

    def _reply(self, samples: Samples, question: str, max_new_tokens: int) -> GenerationResult:
        began = time.perf_counter()
        reply = self._post(
            "/v1/chat/completions",
            began,
            content=chat_body(self.name, wav(samples), question, max_tokens=max_new_tokens),
            headers={"Content-Type": "application/json"},
        )
        (choice,) = reply.body["choices"]
        return GenerationResult(choice["message"]["content"], tuple(choice["token_ids"]))


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
