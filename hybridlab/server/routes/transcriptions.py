"""OpenAI's models and transcriptions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, File, Request, Response
from fastapi.responses import PlainTextResponse

from hybridlab.models.transcription import TranscribeOptions
from hybridlab.server.jobs import DecodedAudio, InferenceParams, InferenceResult
from hybridlab.server.routes.common import TIMING, EngineDep, add_timing, read_upload, result_of
from hybridlab.server.schemas import transcripts
from hybridlab.server.schemas.base import INFERENCE_ERRORS, error_responses
from hybridlab.server.schemas.requests import TranscriptionForm
from hybridlab.server.schemas.transcripts import Model, ModelList, Transcript, VerboseTranscript
from hybridlab.server.streaming import cancel_on_disconnect

router = APIRouter(prefix="/v1")
TEXT: dict[str, Any] = {"schema": {"type": "string"}}
RESPONSES = {
    200: {
        "content": dict.fromkeys(("text/plain", "application/x-subrip", "text/vtt"), TEXT),
        "headers": TIMING,
        "description": "in the format that response_format names",
    },
    **INFERENCE_ERRORS,
}


@router.get("/models", responses=error_responses(401, 503))
async def models(engine: EngineDep) -> ModelList:
    data = [Model(id=name, created=engine.created) for name in engine.model_ids()]
    return ModelList(data=data)


@router.post(
    "/audio/transcriptions", response_model=Transcript | VerboseTranscript, responses=RESPONSES
)
async def transcriptions(
    request: Request, engine: EngineDep, form: Annotated[TranscriptionForm, File()], sent: Response
) -> Any:
    role = engine.role_of(form.model)
    language = engine.settings.language if form.language is None else form.language
    upload = await read_upload(form.file)
    audio = await cancel_on_disconnect(request, engine.decode(upload, role, "transcription"))
    params = InferenceParams(
        role=role,
        kind="transcription",
        audio=audio,
        options=TranscribeOptions(language=language, max_new_tokens=form.max_tokens),
    )
    (job,) = engine.submit(params)
    result = await result_of(request, job)
    answer = _transcript(form.response_format, result, audio, language)
    add_timing(answer if isinstance(answer, Response) else sent, result)
    return answer


def _transcript(
    kind: str, result: InferenceResult, audio: DecodedAudio, language: str
) -> Transcript | Response:
    match kind:
        case "text":
            return PlainTextResponse(result.text + "\n")
        case "srt":
            subtitles = transcripts.srt(transcripts.segments_of(result, audio))
            return PlainTextResponse(subtitles, media_type="application/x-subrip")
        case "vtt":
            subtitles = transcripts.vtt(transcripts.segments_of(result, audio))
            return PlainTextResponse(subtitles, media_type="text/vtt")
        case "verbose_json":
            return transcripts.verbose_transcript(result, audio, language)
    return transcripts.transcript(result, audio)
