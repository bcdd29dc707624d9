"""Streamed answers in the orchestrator: each job its own words, never one twice, never a wrong
one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hybridlab.errors import WorkerLostError
from hybridlab.server.jobs import Job
from hybridlab.server.refusals import RefusalError
from tests.server.fakes import OUT_OF_MEMORY, FakeTenant, Stage, until, voxtral


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20))


async def read(job: Job) -> tuple[list[str], str]:
    """The pieces, and the code of what ended them; '' where the answer is whole."""
    pieces = []
    try:
        async for piece in job.words():
            pieces.append(piece)
    except RefusalError as error:
        return pieces, error.code
    return pieces, ""


def failing(tenant: FakeTenant, error: Exception, *, before: int, times: int = 1) -> FakeTenant:
    """The tenant as one that fails before this word, so often."""
    left = [error] * times

    def before_word(told: int) -> None:
        if told == before and left:
            raise left.pop()

    tenant.before_word = before_word
    return tenant


def lost() -> WorkerLostError:
    return WorkerLostError("the worker was lost: ended by SIGKILL")


def test_words_arrive_while_the_answer_is_being_decoded() -> None:
    """The tenant says its third word only after the first two were read."""

    async def scene() -> None:
        go = threading.Event()
        tenant = voxtral(say=lambda job: "one two three", before_word=lambda n: n < 2 or go.wait())
        async with Stage(tenant) as stage:
            job = stage.ask("a", stream=True)
            words = job.words()
            assert [await anext(words), await anext(words)] == ["one", " two"]
            assert not job.future.done()
            go.set()
            assert [piece async for piece in words] == [" three"]
            assert (await job.future).text == "one two three"

    run(scene)


def test_of_one_batch_each_has_its_own_words_and_who_did_not_ask_for_them_has_the_text() -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=0.05, say=lambda job: f"{job.question} says {job.question}")
        async with Stage(tenant) as stage:
            first = stage.ask("0")
            await until(lambda: len(tenant.calls) == 1)
            jobs = [stage.ask("1", stream=True), stage.ask("2"), stage.ask("3", stream=True)]
            reads = await asyncio.gather(read(jobs[0]), read(jobs[2]))
            assert reads == [(["1", " says", " 1"], ""), (["3", " says", " 3"], "")]
            assert (await jobs[1].future).text == "2 says 2"
            assert tenant.calls == [["0"], ["1", "2", "3"]]
            assert tenant.listened == [False, True]
            await first.future

    run(scene)


@pytest.mark.parametrize("error", [lost(), MemoryError(OUT_OF_MEMORY), RuntimeError("odd")])
def test_an_answer_that_begins_again_repeats_nothing(error: Exception) -> None:
    """Two in a batch; after the fault each is served by itself."""

    async def scene() -> None:
        say = {"1": "one two three", "2": "four five six seven"}
        tenant = voxtral(serve_s=0.05, say=lambda job: say.get(job.question, "x"))
        async with Stage(failing(tenant, error, before=2)) as stage:
            first = stage.ask("0")
            await until(lambda: len(tenant.calls) == 1)
            jobs = [stage.ask("1", stream=True), stage.ask("2", stream=True)]
            reads = await asyncio.gather(*(read(job) for job in jobs))
            assert tenant.calls == [["0"], ["1", "2"], ["1"], ["2"]]
            assert reads == [
                (["one", " two", " three"], ""),
                (["four", " five", " six", " seven"], ""),
            ]
            await first.future

    run(scene)


@pytest.mark.parametrize("again", ["one 2 three", "on", "one", "other words than before"])
def test_an_answer_that_begins_again_and_differs_ends_with_an_error(again: str) -> None:
    """What was given stays; nothing of the other text follows."""

    async def scene() -> None:
        tenant = failing(voxtral(), lost(), before=2)
        tenant.say = lambda job: again if job.lost else "one two three"
        async with Stage(tenant) as stage:
            job = stage.ask("a", stream=True)
            assert await read(job) == (["one", " two"], "answer_changed")
            assert len(tenant.calls) == 2
            assert await read(stage.ask("b", stream=True)) == (["one", " two", " three"], "")

    run(scene)


def test_a_worker_lost_twice_over_a_stream_ends_it_with_an_error() -> None:
    async def scene() -> None:
        tenant = failing(voxtral(say=lambda job: "one two three"), lost(), before=2, times=2)
        async with Stage(tenant) as stage:
            assert await read(stage.ask("a", stream=True)) == (["one", " two"], "worker_lost")

    run(scene)


def test_time_that_is_up_in_mid_stream_ends_it_with_an_error() -> None:
    async def scene() -> None:
        go = threading.Event()
        tenant = voxtral(say=lambda job: "one two", before_word=lambda n: n < 1 or go.wait())
        async with Stage(tenant, request_timeout_s=0.3) as stage:
            reading = asyncio.create_task(read(stage.ask("a", stream=True)))
            assert await reading == (["one"], "timeout")
            go.set()

    run(scene)


def test_decoding_goes_on_as_long_as_one_of_a_batch_is_wanted() -> None:
    async def scene() -> None:
        reached, go = threading.Event(), threading.Event()

        def before_word(told: int) -> None:
            if told == 1:
                reached.set()
                go.wait()

        tenant = voxtral(serve_s=0.05, say=lambda job: "one two three four")
        async with Stage(tenant) as stage:
            for leaving, stopped in ((2, True), (1, False)):
                tenant.before_word = lambda told: None
                first = stage.ask("0")
                await until(lambda: bool(tenant.calls) and tenant.calls[-1] == ["0"])
                jobs = [stage.ask("1", stream=True), stage.ask("2", stream=True)]
                tenant.before_word = before_word
                reached.clear()
                go.clear()
                await asyncio.to_thread(reached.wait)
                for job in jobs[:leaving]:
                    job.future.cancel()
                go.set()
                await until(lambda: not stage.engine.lanes["voxtral"].at_work)
                assert ("stopped after 2" in tenant.log) is stopped
                tenant.log.clear()
                await first.future
            assert (await jobs[1].future).text == "one two three four"

    run(scene)
