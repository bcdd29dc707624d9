"""A transcript and answers of both models in one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Request

from hybridlab.models.transcription import TranscribeOptions
from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import DecodedAudio, InferenceJob, InferenceParams
from hybridlab.server.routes.common import EngineDep, question_params, read_upload
from hybridlab.server.schemas.base import INFERENCE_ERRORS
from hybridlab.server.schemas.events import HYBRID_STREAM
from hybridlab.server.schemas.hybrid import (
    Hybrid,
    HybridDelta,
    HybridDone,
    HybridEvent,
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
    language = engine.language(role, form.language)
    upload = await read_upload(form.file)
    audio = await cancel_on_disconnect(request, engine.decode(upload, role, "transcription"))
    limit = engine.answer_tokens(form.max_tokens)
    jobs = engine.submit(
        InferenceParams(
            role=role,
            kind="transcription",
            audio=audio,
            options=TranscribeOptions(
                language=language, beams=engine.settings.beams if role == "asr" else 1
            ),
        ),
        *(question_params(audio, text, limit, stream=form.stream) for text in questions),
    )
    if form.stream:
        return event_stream(_events(jobs, audio))
    try:
        results = asyncio.gather(*(job.future for job in jobs))
        transcript, *answers = await cancel_on_disconnect(request, results)
    finally:
        _cancel(jobs)
    return Hybrid(
        id=new_id("hybrid"),
        transcript=hybrid_transcript(transcript, audio),
        answers=[
            hybrid_answer(n, *answered)
            for n, answered in enumerate(zip(questions, answers, strict=True))
        ],
    )


async def _events(jobs: list[InferenceJob], audio: DecodedAudio) -> AsyncIterator[str]:
    """Each as soon as it is there, the transcript first."""
    first, *answers = jobs
    try:
        yield _event(hybrid_transcript(await first.future, audio))
        async with merge_streams(*(_answer(n, job) for n, job in enumerate(answers))) as parts:
            async for part in parts:
                yield _event(part)
        yield _event(HybridDone(id=new_id("hybrid")))
    except ApiError as error:
        yield event(error.body(), "error")
    finally:
        _cancel(jobs)


async def _answer(index: int, job: InferenceJob) -> AsyncIterator[HybridEvent]:
    async for piece in job.pieces():
        yield HybridDelta(index=index, text=piece)
    yield hybrid_answer(index, job.params.question, await job.future)


def _event(part: HybridEvent) -> str:
    return event(part.model_dump(), part.event_name)


def _cancel(jobs: list[InferenceJob]) -> None:
    for job in jobs:
        job.future.cancel()
