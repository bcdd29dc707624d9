"""A transcript and answers of both models in one call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Request

from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import DecodedAudio, InferenceJob, InferenceParams
from hybridlab.server.routes.common import EngineDep, question_params, read_upload
from hybridlab.server.schemas.errors import INFERENCE_ERRORS
from hybridlab.server.schemas.events import HYBRID_STREAM
from hybridlab.server.schemas.hybrid import (
    Hybrid,
    HybridAnswer,
    HybridDelta,
    HybridDone,
    HybridTranscript,
    hybrid_answer,
    hybrid_transcript,
)
from hybridlab.server.schemas.requests import HybridForm
from hybridlab.server.streaming import (
    cancel_on_disconnect,
    event,
    event_stream,
    merge_streams,
    new_id,
)

Part = HybridTranscript | HybridDelta | HybridAnswer
#: Events of a stream by what they carry.
EVENTS = {HybridTranscript: "transcript", HybridDelta: "delta", HybridAnswer: "answer"}

router = APIRouter(prefix="/v1")
RESPONSES = {
    200: {
        "content": HYBRID_STREAM,
        "description": "a transcript and answers; with stream, the events transcript, delta (more "
        "of an answer), answer, and at the end done or error",
    },
    **INFERENCE_ERRORS,
}


@router.post("/hybrid", response_model=Hybrid, responses=RESPONSES)
async def hybrid(request: Request, engine: EngineDep, form: Annotated[HybridForm, File()]) -> Any:
    """A transcript and an answer to each `question`; streamed, the transcript comes first, and
    before each answer its text as it comes (`delta`)."""
    questions, role = form.questions, engine.asr()
    language = engine.settings.language if form.language is None else form.language
    upload = await read_upload(form.file)
    audio = await cancel_on_disconnect(request, engine.decode(upload, role, "transcription"))
    limit = engine.answer_tokens(form.max_tokens)
    jobs = engine.submit(
        InferenceParams(role=role, kind="transcription", audio=audio, language=language),
        *(question_params(audio, text, limit, stream=form.stream) for text in questions),
    )
    parts = _parts(jobs, audio)
    if form.stream:
        return event_stream(_events(parts, jobs))
    try:
        return await cancel_on_disconnect(request, _collect(parts))
    finally:
        _cancel(jobs)


async def _parts(jobs: list[InferenceJob], audio: DecodedAudio) -> AsyncIterator[Part]:
    """Each as soon as it is there, the transcript first."""
    first, *answers = jobs
    yield hybrid_transcript(await first.future, audio)
    async with merge_streams(*(_answer(n, job) for n, job in enumerate(answers))) as parts:
        async for part in parts:
            yield part


async def _answer(index: int, job: InferenceJob) -> AsyncIterator[Part]:
    if job.stream is not None:
        async for piece in job.pieces():
            yield HybridDelta(index=index, text=piece)
    yield hybrid_answer(index, job.params.question, await job.future)


async def _collect(parts: AsyncIterator[Part]) -> Hybrid:
    found = [part async for part in parts]
    (transcript,) = (part for part in found if isinstance(part, HybridTranscript))
    answers = [part for part in found if isinstance(part, HybridAnswer)]
    answers.sort(key=lambda answer: answer.index)
    return Hybrid(id=new_id("hybrid"), transcript=transcript, answers=answers)


async def _events(parts: AsyncIterator[Part], jobs: list[InferenceJob]) -> AsyncIterator[str]:
    try:
        async for part in parts:
            yield event(part.model_dump(), EVENTS[type(part)])
        yield event(HybridDone(id=new_id("hybrid")).model_dump(), "done")
    except ApiError as error:
        yield event(error.body(), "error")
    finally:
        _cancel(jobs)


def _cancel(jobs: list[InferenceJob]) -> None:
    for job in jobs:
        job.future.cancel()
