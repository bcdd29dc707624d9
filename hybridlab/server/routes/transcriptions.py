"""OpenAI's models, transcriptions and translations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Request, Response
from fastapi.responses import PlainTextResponse

from hybridlab.models.transcription import Task, TranscribeOptions
from hybridlab.server import subtitles
from hybridlab.server.engine import Engine
from hybridlab.server.errors import ApiError, bad_request
from hybridlab.server.jobs import InferenceJob, InferenceParams, InferenceResult
from hybridlab.server.model_names import pocket_words
from hybridlab.server.routes.common import TIMING, EngineDep, add_timing, read_upload, result_of
from hybridlab.server.schemas import transcripts
from hybridlab.server.schemas.base import SPEECH_ERRORS, error_responses
from hybridlab.server.schemas.events import TRANSCRIPT_STREAM
from hybridlab.server.schemas.requests import TranscriptionForm
from hybridlab.server.schemas.transcripts import (
    WARNING_HEADER,
    Model,
    ModelList,
    Transcript,
    VerboseTranscript,
)
from hybridlab.server.settings import Role
from hybridlab.server.streaming import cancel_on_disconnect, event, event_stream

router = APIRouter(prefix="/v1")
TEXT: dict[str, Any] = {"schema": {"type": "string"}}
WARNING = {
    WARNING_HEADER: {
        "description": "of text, srt and vtt: what is `warning` in JSON",
        "schema": {"type": "string"},
    }
}
RESPONSES = {
    200: {
        "content": {
            **dict.fromkeys(("text/plain", "application/x-subrip", "text/vtt"), TEXT),
            **TRANSCRIPT_STREAM,
        },
        "headers": TIMING | WARNING,
        "description": "in the format that response_format names; with stream, "
        "transcript.text.delta events, and transcript.text.done or an error at the end",
    },
    **SPEECH_ERRORS,
}
SHAPE = Transcript | VerboseTranscript
Form = Annotated[TranscriptionForm, File()]


@router.get("/models", responses=error_responses(401, 503))
async def models(engine: EngineDep) -> ModelList:
    return ModelList(data=[_model(engine, role) for role in engine.roles()])


@router.get("/models/{model:path}", responses=error_responses(401, 404, 503))
async def model(engine: EngineDep, model: str) -> Model:
    """Of any name of the model."""
    return _model(engine, engine.role_of(model))


def _model(engine: Engine, role: Role) -> Model:
    scheduler = engine.schedulers[role]
    return Model(
        id=scheduler.model,
        created=engine.created,
        tells_times=scheduler.client.tells_times,
        translates=scheduler.client.translates,
        warning=pocket_words(scheduler.model) or None,
    )


@router.post("/audio/transcriptions", response_model=SHAPE, responses=RESPONSES)
async def transcriptions(request: Request, engine: EngineDep, form: Form, sent: Response) -> Any:
    """What is said, in its own language."""
    return await _heard(request, engine, form, sent, "transcribe")


@router.post("/audio/translations", response_model=SHAPE, responses=RESPONSES)
async def translations(request: Request, engine: EngineDep, form: Form, sent: Response) -> Any:
    """What is said, in English."""
    return await _heard(request, engine, form, sent, "translate")


async def _heard(
    request: Request, engine: Engine, form: TranscriptionForm, sent: Response, task: Task
) -> Any:
    role = engine.role_of(form.model)
    options = _options(engine, role, form, task)
    upload = await read_upload(form.file)
    audio = await cancel_on_disconnect(request, engine.decode(upload, role, "transcription"))
    params = InferenceParams(
        role=role, kind="transcription", audio=audio, options=options, stream=form.stream
    )
    (job,) = engine.submit(params)
    if form.stream:
        return event_stream(_events(job, verbose=form.response_format == "verbose_json"))
    result = await result_of(request, job)
    answer = _answer(form.response_format, result, params)
    add_timing(answer if isinstance(answer, Response) else sent, result)
    return answer


def _options(engine: Engine, role: Role, form: TranscriptionForm, task: Task) -> TranscribeOptions:
    """`ApiError` for what this model cannot do."""
    form.check()
    client, name = engine.schedulers[role].client, engine.schedulers[role].model
    if task == "translate" and not client.translates:
        raise bad_request(f"{name} does not translate; name a multilingual Whisper of /v1/models")
    if form.prompt and role == "llm":
        raise bad_request(f"prompt: {name} takes none; leave it out, or name the ASR")
    if form.wants_words and not client.tells_times:
        raise bad_request(
            f"timestamp_granularities[]: {name} is decoded without timestamps and tells no times "
            "of words; leave it out"
        )
    subtitled = form.response_format in ("srt", "vtt")
    return TranscribeOptions(
        language=engine.language(role, form.language),
        task=task,
        prompt=form.prompt,
        temperature=form.temperature,
        beams=engine.settings.beams if role == "asr" and not form.temperature else 1,
        max_new_tokens=form.max_tokens,
        words=form.wants_words or (subtitled and client.tells_times),
    )


async def _events(job: InferenceJob, *, verbose: bool) -> AsyncIterator[str]:
    """The text as it is read."""
    params = job.params
    try:
        async for piece in job.pieces():
            yield event(transcripts.TranscriptDelta(delta=piece).model_dump())
        result = await job.future
        done = transcripts.transcript_done(result, params.audio, params.options, verbose=verbose)
        yield event(done.model_dump())
    except ApiError as error:
        yield event(error.body())
    finally:  # the client may have gone
        job.future.cancel()


def _answer(kind: str, result: InferenceResult, params: InferenceParams) -> Transcript | Response:
    if kind == "json":
        return transcripts.transcript(result, params.audio)
    if kind == "verbose_json":
        return transcripts.verbose_transcript(result, params.audio, params.options)
    warning = transcripts.warning_of(result, params.audio)
    headers = {WARNING_HEADER: warning} if warning else None
    segments = transcripts.segments_of(result, params.audio)
    match kind:
        case "srt":
            text, media_type = subtitles.srt(segments), "application/x-subrip"
        case "vtt":
            text, media_type = subtitles.vtt(segments), "text/vtt"
        case _:
            text, media_type = f"{result.text}\n", "text/plain"
    return PlainTextResponse(text, headers=headers, media_type=media_type)
