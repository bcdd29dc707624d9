"""Tenants that are asked over HTTP: clients of `hybridlab serve` processes on loopback.

A server stands for a container: a process of its own, with its own interpreter, libraries and
decoder, that shares nothing with the case but the machine.
"""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.device import Device
from hybridlab.device.trees import TreeMember
from hybridlab.errors import UnavailableError
from hybridlab.isolate import ADDRESS_VARIABLE
from hybridlab.tenants.base import Analyst, Span, Tenant, TenantSpec, Text, Transcriber

#: Exit code of the command line for what the lab itself refuses, told in one line.
REFUSED = 2
STOP_S = 20.0
LOOK_EVERY_S = 0.05
SERVES = re.compile(r"(http://\S+) serves ")


def command(
    *, analyst: TenantSpec | None = None, transcriber: TenantSpec | None = None, device: str
) -> list[str]:
    """Options of `hybridlab serve` for these tenants. Requests go through one at a time, as the
    other variants have them."""
    options = {"device": device, "port": "0", "host": "127.0.0.1", "fallback": "none", "batch": "1"}
    if analyst is not None:
        if (analyst.attention, analyst.decoding, analyst.load_path) != ("auto", "loop", "direct"):
            raise UnavailableError(
                "a server has attention auto, decoding loop and load_path direct; use these, or "
                "the variant processes"
            )
        options |= _options("voxtral", analyst) | {"seed": str(analyst.seed)}
    if transcriber is not None:
        options |= _options("whisper", transcriber) | {"seed": str(transcriber.seed - 1)}
        options["whisper-backend"] = transcriber.backend
    if analyst is not None and transcriber is not None:
        options |= {"strategy": "parallel", "variant": "processes"}
    else:
        options["only"] = "whisper" if analyst is None else "voxtral"
    return [f"--{name}={value}" for name, value in options.items()]


def _options(name: str, spec: TenantSpec) -> dict[str, str]:
    return {
        name: spec.model,
        f"{name}-weights": spec.weights,
        f"{name}-path": spec.path,
        f"{name}-dtype": spec.dtype,
    }


class Server:
    """One `hybridlab serve` with its processes, which count as part of the case. It runs from the
    first tenant's `enter` to the last one's `leave`."""

    def __init__(self, name: str, options: list[str], device: Device) -> None:
        self.name = name
        self.options = options
        self.device = device
        self.url = ""
        self._inside: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._member: TreeMember | None = None

    def enter(self, tenant: str) -> None:
        """`UnavailableError` with the server's own line where it refuses to start."""
        if self._process is None:
            self._start()
        self._inside.add(tenant)
        self.count()

    def leave(self, tenant: str) -> None:
        self._inside.discard(tenant)
        if not self._inside:
            self.stop()

    def _start(self) -> None:
        without = (ADDRESS_VARIABLE, "HYBRIDLAB_TOKEN")  # processes of its own, open to loopback
        environment = {name: value for name, value in os.environ.items() if name not in without}
        # a file, unlike a pipe, need not be emptied; a case that is killed takes its group along
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hybridlab.cli", "serve", *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=environment,
        )
        self._member = TreeMember(self.name, self._process.pid)
        self.device.members = (*self.device.members, self._member)
        while not (serves := SERVES.search(self._said())):
            if self._process.poll() is not None:
                raise self._failure(self._process.returncode)
            time.sleep(LOOK_EVERY_S)
        self.url = serves[1]

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _failure(self, code: int) -> Exception:
        last = (self._said().strip().splitlines() or ["it said nothing"])[-1]
        message = f"the server of {self.name} did not start: {last.removeprefix('hybridlab: ')}"
        return UnavailableError(message) if code == REFUSED else RuntimeError(message)

    def count(self) -> None:
        """Tell the device what of these processes is neither weights nor a request."""
        assert self._member is not None
        self._member.weights_bytes = sum(self.weights_bytes(name) or 0 for name in self._inside)
        self._member.release()

    def weights_bytes(self, tenant: str) -> int | None:
        """As the server's own ledger has it."""
        import httpx

        text = httpx.get(f"{self.url}/metrics", trust_env=False).raise_for_status().text
        found = re.search(rf'^hybridlab_ledger_bytes{{owner="{tenant} weights"}} (\S+)', text, re.M)
        return int(float(found[1])) if found else None

    @property
    def overhead_bytes(self) -> int:
        return self._member.overhead_bytes if self._member is not None else 0

    def stop(self) -> None:
        """End it and wait until it is gone; again is allowed."""
        process, member = self._process, self._member
        if process is None or member is None:
            return
        member.leave()
        process.terminate()
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()
            self._log.close()
            self._process = None


@dataclass(frozen=True)
class _Reply:
    body: Mapping[str, Any]
    #: What the server's own clock says, in seconds.
    wait_s: float
    work_s: float


class OverHttp(Tenant):
    """The caller's side. A call leaves three spans, laid end to end: `http` (encoding, upload,
    parsing, decoding and the way back), `wait` in the server's queue, and `work` of the tenant; the
    way back, which is short, is counted in the first."""

    def __init__(self, spec: TenantSpec, device: Device, server: Server) -> None:
        super().__init__(spec, device)
        self.server = server
        self._weights_bytes: int | None = None
        self._loaded = False

    @property
    def loaded(self) -> bool:
        return self._loaded

    def load(self) -> None:
        import httpx

        self.server.enter(self.name)
        self._weights_bytes = self.server.weights_bytes(self.name)
        self._client = httpx.Client(base_url=self.server.url, timeout=None, trust_env=False)
        self._loaded = True

    def unload(self) -> None:
        self._client.close()
        self.server.leave(self.name)
        self._loaded = False

    def module(self) -> None:
        return None  # torch holds it in another process

    def weights_bytes(self) -> int | None:
        return self._weights_bytes if self._loaded else None

    def _post(self, path: str, began_s: float, **content: Any) -> _Reply:
        if self.on_phase is not None:
            self.on_phase(f"{self.name} http")
        response = self._client.post(path, **content)
        if response.is_error:
            said = response.json()["error"]["message"]
            raise RuntimeError(f"{path} answered {response.status_code}: {said}")
        found = re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"])
        timing = {name: float(ms) / 1000 for name, ms in found}
        reply = _Reply(response.json(), timing["wait"], timing["work"])
        self._write_spans(began_s, time.perf_counter(), reply)
        if self.on_phase is not None:
            self.on_phase("")
        return reply

    def _write_spans(self, began_s: float, ended_s: float, reply: _Reply) -> None:
        worked = ended_s - reply.work_s
        waited = worked - reply.wait_s
        for phase, start, end in (
            ("http", began_s, waited),
            ("wait", waited, worked),
            ("work", worked, ended_s),
        ):
            self.spans.append(Span(self.name, phase, start, end))


class HttpTranscriber(OverHttp, Transcriber):
    """A Whisper behind `/v1/audio/transcriptions`."""

    def transcribe(
        self,
        batch: Sequence[Samples],
        *,
        language: str = "en",
        max_new_tokens: int = 224,
        beams: int = 1,
    ) -> list[Text]:
        if beams != 1:
            raise UnavailableError("a server decodes greedily; use beams=1")
        return [self._transcript(samples, language, max_new_tokens) for samples in batch]

    def _transcript(self, samples: Samples, language: str, max_new_tokens: int) -> Text:
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
        return Text(cast(str, body["text"]), tuple(tokens))


class HttpAnalyst(HttpTranscriber, Analyst):
    """A Voxtral behind `/v1/chat/completions`."""

    def answer(
        self, batch: Sequence[Samples], questions: Sequence[str], *, max_new_tokens: int = 200
    ) -> list[Text]:
        pairs = zip(batch, questions, strict=True)
        return [self._reply(samples, question, max_new_tokens) for samples, question in pairs]

    def _reply(self, samples: Samples, question: str, max_new_tokens: int) -> Text:
        began = time.perf_counter()
        data = base64.b64encode(wav(samples)).decode("ascii")
        content = [
            {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
            {"type": "text", "text": question},
        ]
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_new_tokens,
        }
        (choice,) = self._post("/v1/chat/completions", began, json=body).body["choices"]
        return Text(choice["message"]["content"], tuple(choice["token_ids"]))


def wav(samples: Samples) -> bytes:
    """float32, so that the server decodes the very same values."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, catalog.SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")
    return buffer.getvalue()
