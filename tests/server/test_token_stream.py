"""Streamed answers in the orchestrator: each job its own words, never one twice, never a wrong
one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import InferenceJob
from tests.server.fakes import OUT_OF_MEMORY, FakeModel, Stage, llm, lost, played, until


async def read(job: InferenceJob) -> tuple[list[str], str]:
    """The pieces, and the code of what ended them; '' where the answer is whole."""
    pieces = []
    try:
        async for piece in job.pieces():
            pieces.append(piece)
    except ApiError as error:
        return pieces, error.code
    return pieces, ""


def failing(model: FakeModel, error: Exception, *, before: int, times: int = 1) -> FakeModel:
    """The model as one that fails before this word, so often."""
    left = [error] * times

    async def before_word(told: int) -> None:
        if told == before and left:
            raise left.pop()

    model.before_word = before_word
    return model


def after(n_words: int, go: asyncio.Event) -> Callable[[int], Awaitable[object]]:
    """Before a word that comes after so many, wait for `go`."""
    return lambda told: go.wait() if told >= n_words else asyncio.sleep(0)


@played
async def test_words_arrive_while_the_answer_is_being_decoded() -> None:
    """The model says its third word only after the first two were read."""
    go = asyncio.Event()
    model = llm(say=lambda job: "one two three", before_word=after(2, go))
    async with Stage(model) as stage:
        job = stage.ask("a", stream=True)
        words = job.pieces()
        assert [await anext(words), await anext(words)] == ["one", " two"]
        assert not job.future.done()
        go.set()
        assert [piece async for piece in words] == [" three"]
        assert (await job.future).text == "one two three"


@played
async def test_of_one_batch_each_has_its_own_words_and_who_did_not_ask_for_them_has_the_text() -> (
    None
):
    model = llm(serve_s=0.05, say=lambda job: f"{job.params.question} says {job.params.question}")
    async with Stage(model) as stage:
        first = stage.ask("0")
        await until(lambda: len(model.calls) == 1)
        jobs = [stage.ask("1", stream=True), stage.ask("2"), stage.ask("3", stream=True)]
        reads = await asyncio.gather(read(jobs[0]), read(jobs[2]))
        assert reads == [(["1", " says", " 1"], ""), (["3", " says", " 3"], "")]
        assert (await jobs[1].future).text == "2 says 2"
        assert model.calls == [["0"], ["1", "2", "3"]]
        assert model.listened == [False, True]
        await first.future


@pytest.mark.parametrize("error", [lost(), MemoryError(OUT_OF_MEMORY), RuntimeError("odd")])
@played
async def test_an_answer_that_begins_again_repeats_nothing(error: Exception) -> None:
    """Two in a batch; after the fault each is served by itself."""
    say = {"1": "one two three", "2": "four five six seven"}
    model = llm(serve_s=0.05, say=lambda job: say.get(job.params.question, "x"))
    async with Stage(failing(model, error, before=2)) as stage:
        first = stage.ask("0")
        await until(lambda: len(model.calls) == 1)
        jobs = [stage.ask("1", stream=True), stage.ask("2", stream=True)]
        reads = await asyncio.gather(*(read(job) for job in jobs))
        assert model.calls == [["0"], ["1", "2"], ["1"], ["2"]]
        assert reads == [
            (["one", " two", " three"], ""),
            (["four", " five", " six", " seven"], ""),
        ]
        await first.future


@pytest.mark.parametrize("again", ["one 2 three", "on", "one", "other words than before"])
@played
async def test_an_answer_that_begins_again_and_differs_ends_with_an_error(again: str) -> None:
    """What was given stays; nothing of the other text follows."""
    model = failing(llm(), lost(), before=2)
    model.say = lambda job: again if job.losses else "one two three"
    async with Stage(model) as stage:
        job = stage.ask("a", stream=True)
        assert await read(job) == (["one", " two"], "answer_changed")
        assert len(model.calls) == 2
        assert await read(stage.ask("b", stream=True)) == (["one", " two", " three"], "")


@played
async def test_a_worker_lost_twice_over_a_stream_ends_it_with_an_error() -> None:
    model = failing(llm(say=lambda job: "one two three"), lost(), before=2, times=2)
    async with Stage(model) as stage:
        assert await read(stage.ask("a", stream=True)) == (["one", " two"], "worker_lost")


@played
async def test_time_that_is_up_in_mid_stream_ends_it_with_an_error() -> None:
    never = asyncio.Event()
    model = llm(say=lambda job: "one two", before_word=after(1, never))
    async with Stage(model, request_timeout_s=0.3) as stage:
        reading = asyncio.create_task(read(stage.ask("a", stream=True)))
        assert await reading == (["one"], "timeout")


@played
async def test_decoding_goes_on_as_long_as_one_of_a_batch_is_wanted() -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def before_word(told: int) -> None:
        if told == 1:
            reached.set()
            await go.wait()

    model = llm(serve_s=0.05, say=lambda job: "one two three four")
    async with Stage(model) as stage:
        for leaving, stopped in ((2, True), (1, False)):
            model.before_word = lambda told: asyncio.sleep(0)
            first = stage.ask("0")
            await until(lambda: bool(model.calls) and model.calls[-1] == ["0"])
            jobs = [stage.ask("1", stream=True), stage.ask("2", stream=True)]
            model.before_word = before_word
            reached.clear()
            go.clear()
            await reached.wait()
            for job in jobs[:leaving]:
                job.future.cancel()
            go.set()
            await stage.idle()
            assert ("stopped after 2" in model.log) is stopped
            model.log.clear()
            await first.future
        assert (await jobs[1].future).text == "one two three four"
