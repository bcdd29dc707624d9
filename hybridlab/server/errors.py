"""Why a request gets no text: each with its HTTP status, a code for programs and one line."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from hybridlab import catalog
from hybridlab.errors import HybridlabError
from hybridlab.units import format_bytes, format_seconds

#: The code of a request for which the device has no memory, and of a model that overflows.
OUT_OF_MEMORY, LOGITS_NOT_FINITE = "out_of_memory", "logits_not_finite"


class ApiError(HybridlabError, HTTPException):
    """A request that is answered with an error. `extra` stands beside the message, `retry_after_s`
    becomes a header."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
        if retry_after_s is not None:
            headers["Retry-After"] = str(retry_after_s)
        HTTPException.__init__(self, status, message, headers)
        self.code = code
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})

    def __str__(self) -> str:
        return self.detail

    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status_code < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "code": self.code, **self.extra}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, self.headers)


def bad_request(message: str, *, code: str = "invalid_request") -> ApiError:
    return ApiError(400, code, message)


def invalid_api_key() -> ApiError:
    return ApiError(401, "invalid_api_key", "the bearer token is missing or wrong")


def too_long(audio_s: float, longest_s: float, why: str) -> ApiError:
    """`longest_s`: the longest audio that would be served; `why`: what bounds it."""
    asked = format_seconds(audio_s)
    return ApiError(
        413,
        "audio_too_long",
        f"an audio of {asked} is too long: {why} allows {format_seconds(longest_s)}; cut it into "
        "shorter files",
        extra={"longest_audio_s": longest_s},
    )


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(
        413,
        "upload_too_large",
        f"the upload is larger than {limit_bytes / 10**6:g} MB; send a shorter or compressed one",
        extra={"largest_upload_bytes": limit_bytes},
    )


def too_slow(limit_s: float) -> ApiError:
    return ApiError(
        408, "upload_timeout", f"the upload did not end within {limit_s:g} s; send it faster"
    )


def _unavailable(code: str, message: str, retry_after_s: int, **extra: Any) -> ApiError:
    return ApiError(503, code, message, retry_after_s=retry_after_s, extra=extra)


def uploads_full() -> ApiError:
    return _unavailable("uploads_full", "too many uploads are held at once; try again", 1)


def too_many_requests() -> ApiError:
    return _unavailable("too_many_requests", "too many requests are in progress; try again", 1)


def queue_full(retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        "queue_full",
        f"too many requests wait already; try again in {retry_after_s} s",
        retry_after_s=retry_after_s,
    )


def not_ready(message: str, *, code: str = "not_ready") -> ApiError:
    return _unavailable(code, message, 2)


def timed_out(limit_s: float) -> ApiError:
    return ApiError(
        504, "timeout", f"no answer within {limit_s:g} s; send a shorter audio, or try again later"
    )


def worker_lost(model: str) -> ApiError:
    message = f"the worker of {model} was lost twice over this request; try again"
    return _unavailable("worker_lost", message, 1)


def answer_changed(model: str) -> ApiError:
    message = f"{model} started this answer again and gave another text; try again"
    return _unavailable("answer_changed", message, 1)


def no_memory(model: str) -> ApiError:
    message = f"{model} ran out of memory over this request alone; send a shorter audio"
    return _unavailable(OUT_OF_MEMORY, message, 5)


def memory_taken(n_bytes: int, of: str, *, longest_s: float | None = None) -> ApiError:
    """`n_bytes`: what other programs hold of the memory; `longest_s`: the longest audio for which
    there is room beside them, where that is known."""
    fits = f", which leaves room for {format_seconds(longest_s)} of audio" if longest_s else ""
    message = f"another program holds {format_bytes(n_bytes)} of {of}{fits}; try again when it ends"
    extra = {} if longest_s is None else {"longest_audio_s": longest_s}
    return _unavailable(OUT_OF_MEMORY, message, 30, **extra)


def empty_answer(model: str) -> ApiError:
    return ApiError(422, "empty_output", f"{model} wrote no answer about this audio")


def overflow(model: str, dtype: str) -> ApiError:
    """The reason in the words of `overflow_words`."""
    return ApiError(500, LOGITS_NOT_FINITE, overflow_words(model, dtype))


def overflow_words(model: str, dtype: str) -> str:
    """Why this model's texts mean nothing, and what helps."""
    others = " or ".join(name for name in catalog.WIDE_DTYPES if name != dtype)
    return (
        f"{model} overflows in {dtype}: its logits are no finite numbers, so that its texts mean "
        f"nothing; serve it with --llm-dtype {others}"
    )


def internal_error(name: str) -> ApiError:
    return ApiError(
        500, "internal_error", f"{name} failed over this request; the server's log says why"
    )


def upstream_lost(url: str, why: str) -> ApiError:
    message = f"the server at {url} was lost ({why}); try again"
    return _unavailable("upstream_lost", message, 1)


def upstream_error(url: str, how: str) -> ApiError:
    return ApiError(502, "upstream_error", f"the server at {url} answered {how}; its log says why")
