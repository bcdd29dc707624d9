"""A model of another `hybridlab serve`, called over HTTP: to the scheduler it is like any other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx

from hybridlab.models.base import GenerationResult, TokenCallback, TokenUsage
from hybridlab.models.http_model import (
    COMPLETIONS,
    chat_body,
    server_timing,
    transcript_of,
    transcription_form,
    transcription_path,
)
from hybridlab.models.transcription import FinishReason
from hybridlab.server import errors
from hybridlab.server.jobs import BatchResult, InferenceJob, InferenceResult
from hybridlab.server.model_client import ModelClient
from hybridlab.server.settings import Role

#: At the same time: the other server puts them into batches itself.
MAX_CALLS = 16
#: A server that runs takes a connection, and says how it is, at once.
CONNECT_S = HEALTH_S = 2.0


class HttpModelClient(ModelClient):
    """One call for one job, in the server's own words: what it refuses is raised as the same
    `ApiError`; 503 where it is lost, 502 where its answer makes no sense, 504 where it is silent.
    Memory, batches and smaller models are that server's own business."""

    def __init__(self, role: Role, url: str, *, token: str, timeout_s: float) -> None:
        self.role = role
        self.url = url
        self.max_calls, self.batches = MAX_CALLS, False
        #: Known once `health` has found the server ready.
        self.models: list[str] = []
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None),  # the scheduler bounds the calls
            trust_env=False,  # a proxy of the environment is not meant for a neighbour
        )

    async def health(self) -> str:
        try:
            ready = await self._client.get("/health/ready", timeout=HEALTH_S)
            if ready.status_code != 200:
                return f"the {self.role} at {self.url}: {ready.json()['reason']}"
            listed = await self._client.get("/v1/models", timeout=HEALTH_S)
            listed.raise_for_status()
            models = {str(model["id"]): model for model in listed.json()["data"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            return f"the {self.role} at {self.url} cannot be reached ({type(error).__name__})"
        if len(models) != 1:
            return f"{self.url} serves {', '.join(models)}; start it with --only {self.role}"
        ((name, told),) = models.items()
        self.models = self.models or [name]
        self.tells_times = bool(told.get("tells_times"))
        self.translates = bool(told.get("translates"))
        return ""

    async def infer(
        self, jobs: Sequence[InferenceJob], on_text: TokenCallback | None = None
    ) -> BatchResult:
        (job,) = jobs
        try:
            if job.params.kind == "transcription":
                found = await self._transcript(job, on_text)
            elif on_text is None:
                found = await self._answer(job)
            else:
                found = await self._streamed(job, on_text)
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout):
            raise errors.timed_out(self._timeout_s) from None
        except httpx.HTTPError as error:
            raise errors.upstream_lost(self.url, type(error).__name__) from None
        except (ValueError, KeyError, TypeError) as error:
            why = f"with something that makes no sense ({type(error).__name__})"
            raise errors.upstream_error(self.url, why) from None
        return BatchResult([found.texts], upstream=found)

    async def _transcript(
        self, job: InferenceJob, on_text: TokenCallback | None
    ) -> InferenceResult:
        options = job.params.options
        path, form = transcription_path(options), transcription_form(self.role, options)
        files = {"file": ("audio", job.params.audio.encoded)}
        if on_text is None:
            response = await self._client.post(path, data=form, files=files)
            self._check(response)
            body = response.json()
            return _result(body, response, (transcript_of(body),))
        form["stream"] = "true"
        text = ""
        async with self._client.stream("POST", path, data=form, files=files) as response:
            await self._check_stream(response)
            async for part in _parts(response):
                if part["type"] == "transcript.text.done":
                    return _result(part, response, (transcript_of(part),))
                text += str(part["delta"])
                if not on_text([part["delta"]]):
                    unread = {"model": self.models[0]}
                    return _result(unread, response, (GenerationResult(text, ()),))
        raise ValueError("a stream without an end")

    async def _answer(self, job: InferenceJob) -> InferenceResult:
        response = await self._client.post(COMPLETIONS, **self._question(job, stream=False))
        self._check(response)
        body = response.json()
        (choice,) = body["choices"]
        text = GenerationResult(
            choice["message"]["content"],
            tuple(choice["token_ids"]),
            choice["finish_reason"],
            usage=_usage(body["usage"]),
        )
        return _result(body, response, (text,))

    async def _streamed(self, job: InferenceJob, on_text: TokenCallback) -> InferenceResult:
        text, usage, chunk = "", None, {}
        finish: FinishReason = "stop"
        question = self._question(job, stream=True)
        async with self._client.stream("POST", COMPLETIONS, **question) as response:
            await self._check_stream(response)
            async for chunk in _parts(response):
                for choice in chunk["choices"]:
                    finish = choice["finish_reason"] or finish
                    piece = choice["delta"].get("content", "")
                    text += piece
                    if piece and not on_text([piece]):
                        return _result(chunk, response, (GenerationResult(text, ()),))
                if chunk.get("usage"):
                    usage = _usage(chunk["usage"])
        return _result(chunk, response, (GenerationResult(text, (), finish, usage=usage),))

    def _question(self, job: InferenceJob, *, stream: bool) -> dict[str, Any]:
        options: dict[str, Any] = {"max_tokens": job.max_new_tokens, "stream": stream}
        if stream:
            options["stream_options"] = {"include_usage": True}
        body = chat_body(self.role, job.params.audio.encoded, job.params.question, **options)
        return {"content": body, "headers": {"Content-Type": "application/json"}}

    async def _check_stream(self, response: httpx.Response) -> None:
        if response.is_error:
            await response.aread()
        self._check(response)

    def _check(self, response: httpx.Response) -> None:
        """Raise what the server refused, as it said it; that this server itself is refused is no
        client's fault."""
        if not response.is_error:
            return
        status = response.status_code
        if status in (401, 421):
            raise errors.upstream_error(self.url, f"{status}: it does not know this server")
        after = response.headers.get("retry-after", "")
        raise _api_error(
            status, response.json(), retry_after_s=int(after) if after.isdigit() else None
        )

    async def close(self) -> None:
        await self._client.aclose()


def _api_error(
    status: int, body: Mapping[str, Any], *, retry_after_s: int | None = None
) -> errors.ApiError:
    """`KeyError` and the like for a body that is no error of a server of the lab."""
    told = dict(body["error"])
    message, code = str(told.pop("message")), str(told.pop("code"))
    told.pop("type", None)
    return errors.ApiError(status, code, message, retry_after_s=retry_after_s, extra=told)


def _result(
    body: Mapping[str, Any], response: httpx.Response, texts: tuple[GenerationResult, ...]
) -> InferenceResult:
    """With the times of the header Server-Timing, which a stream has before they are known."""
    seconds = server_timing(response.headers.get("server-timing", ""))
    return InferenceResult(
        texts=texts,
        model=str(body["model"]),
        instead_of=str(body.get("instead_of", "")),
        queue_time_s=seconds.get("wait", 0.0),
        work_s=seconds.get("work", 0.0),
        upstream_s=seconds["total"],
    )


def _usage(told: Mapping[str, Any]) -> TokenUsage:
    return TokenUsage(int(told["prompt_tokens"]), int(told["completion_tokens"]))


async def _parts(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """What a stream says, up to the [DONE] of a completion, or as long as the last part of a
    transcript is not read; an error among the events is raised."""
    async for line in response.aiter_lines():
        name, _, data = line.partition(": ")
        if name != "data":
            continue
        if data == "[DONE]":
            return
        part = dict(json.loads(data))
        if "error" in part:
            raise _api_error(502, part)
        yield part
    raise ValueError("a stream without an end")
