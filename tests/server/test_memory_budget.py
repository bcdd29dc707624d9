"""Models that keep what they have freed, and strangers, on one card: one budget, in any order."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest

from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import InferenceJob
from hybridlab.server.memory import MemoryBudget
from hybridlab.units import GIB
from tests.server.fakes import FakeMemory, FakeModel, Stage, asr, llm, lost, played, refusal, until


def needs(n_bytes: int) -> dict[str, object]:
    return {"needs": lambda job: n_bytes}


def predicted(model: FakeModel, *, seconds: float = 60.0) -> int:
    """What the planner says of a call of this length, as the scheduler asks it."""
    scheduler = Stage(model).engine.schedulers[model.role]
    return scheduler.admission.bytes_of(audio_s=seconds, new_tokens=40)


@pytest.mark.parametrize("order", list(permutations(["asr", "llm", "asr"]))[:3])
@played
async def test_what_was_asked_before_decides_nothing(order: tuple[str, ...]) -> None:
    """Each call takes less than the card, and more than is left beside the other's cache."""
    ear, mind = asr(), llm()
    for model in (ear, mind):
        n_bytes = predicted(model)
        model.needs = lambda job, n_bytes=n_bytes: n_bytes  # type: ignore[misc]
    less, more = sorted([predicted(ear), predicted(mind)])
    memory = FakeMemory(more + less // 2)
    async with Stage(mind, ear, memory=memory) as stage:
        for model in order:
            assert (await stage.ask("a", role=model, seconds=60).future).text == "said a"
            await until(lambda: stage.budget.idle)
            assert stage.budget.margin_bytes == memory.n_bytes
        schedulers = stage.engine.schedulers.values()
        assert sum(scheduler.counts.ooms for scheduler in schedulers) == 0
        assert sum(scheduler.counts.cache_clears for scheduler in schedulers) >= 1


@played
async def test_a_cache_stays_as_long_as_the_other_s_call_fits_beside_it() -> None:
    ear, mind = asr(**needs(10**6)), llm(**needs(10**6))
    async with Stage(mind, ear, memory=FakeMemory(4 * GIB)) as stage:
        for model in ("asr", "llm") * 2:
            await stage.ask("a", role=model).future
        assert [ear.cached, mind.cached] == [10**6, 10**6]
        assert "release" not in [*ear.log, *mind.log]


@pytest.mark.parametrize("at_once", [False, True])
@played
async def test_out_of_memory_is_tried_again_when_the_others_have_given_back(at_once: bool) -> None:
    """The call takes more than the planner says: nobody steps down or is refused for that."""
    ear = asr("medium", "base", **needs(3 * GIB))
    mind = llm(serve_s=0.2, **needs(2 * GIB))
    async with Stage(mind, ear, memory=FakeMemory(4 * GIB), shared=at_once) as stage:
        await stage.ask("a").future
        jobs = [stage.ask("b")]
        await until(lambda: len(mind.calls) == 2 or not at_once)
        jobs.append(stage.ask("c", role="asr"))
        assert [(await job.future).model for job in jobs] == [
            "voxtral-pocket",
            "whisper-medium",
        ]
        counts = stage.scheduler("asr").counts
        assert (counts.ooms, counts.fallbacks) == (1, 0)
        assert mind.log.count("release") == 1


@played
async def test_a_worker_that_starts_again_has_what_the_others_keep() -> None:
    mind = llm(**needs(GIB))
    ear = asr("medium", "base", plan=[lost()])
    async with Stage(mind, ear, memory=FakeMemory(4 * GIB)) as stage:
        await stage.ask("a").future
        assert mind.cached == GIB
        await stage.ask("b", role="asr").future
        assert mind.cached == 0


# ---------------------------------------------------------------------------------- strangers


@played
async def test_a_stranger_that_fills_the_card_is_named_before_and_after_a_request_is_accepted() -> (
    None
):
    mind = llm(**needs(GIB))
    memory = FakeMemory(4 * GIB)
    async with Stage(mind, memory=memory) as stage:

        def comes(job: InferenceJob) -> int:
            memory.others = 4 * GIB - 2**20
            return GIB

        mind.needs = comes
        found = await refusal(stage.ask("a").future)
        assert (found.status_code, found.code) == (503, "out_of_memory")
        assert "another program holds 4.00 GiB of the card" in str(found)
        assert stage.budget.margin_bytes == 2**20
        with pytest.raises(ApiError, match=r"another program holds 4\.00 GiB") as caught:
            stage.ask("b", seconds=600)
        assert (caught.value.status_code, caught.value.extra["longest_audio_s"]) == (503, 0)
        assert "shorter" not in str(caught.value)
        mind.needs = lambda job: GIB
        memory.others = 0
        assert (await stage.ask("c", seconds=600).future).text == "said c"


@played
async def test_who_was_there_when_all_was_loaded_is_no_reason_of_its_own() -> None:
    memory = FakeMemory(4 * GIB, others=4 * GIB - 2**20)
    async with Stage(llm(), memory=memory) as stage:
        with pytest.raises(ApiError) as caught:
            stage.ask("a", seconds=600)
        assert caught.value.code == "audio_too_long"


@pytest.mark.parametrize(
    ("sizes", "helps"), [(("pocket-m", "pocket-s"), False), (("medium", "base"), True)]
)
@played
async def test_a_smaller_whisper_takes_over_only_where_that_helps(
    sizes: tuple[str, str], helps: bool
) -> None:
    """The stranger comes while the call is at work, and again before the next: in medium's place
    there is room for base and the call, in pocket-m's there is not for pocket-s."""
    ear, memory = asr(*sizes), FakeMemory(4 * GIB)
    async with Stage(ear, memory=memory) as stage:

        def comes(job: InferenceJob) -> int:
            memory.others = 4 * GIB - 2**20
            return 0 if ear.active else GIB

        ear.needs = comes
        counts = stage.scheduler("asr").counts
        first = stage.ask("a", role="asr").future
        if helps:
            assert (await first).model == "whisper-base"
            assert stage.scheduler("asr").admission.spec.model == "base"
        else:
            assert "another program holds 4.00 GiB" in str(await refusal(first))
            with pytest.raises(ApiError, match="another program holds"):
                stage.ask("b", role="asr")
        assert (counts.ooms, counts.fallbacks) == (2, helps)


@played
async def test_where_a_smaller_whisper_helps_a_request_is_accepted_beside_a_stranger() -> None:
    ear, memory = asr("medium", "base"), FakeMemory(4 * GIB)
    async with Stage(ear, memory=memory) as stage:
        memory.others = 4 * GIB - 2**20
        ear.needs = lambda job: 0 if ear.active else GIB
        assert (await stage.ask("a", role="asr").future).model == "whisper-base"


# ------------------------------------------------------------------------------------ the line


@played
async def test_who_needs_all_of_it_is_not_passed_by() -> None:
    room, journal = MemoryBudget(10), []

    async def take(name: str, *, alone: bool = False) -> None:
        async with room.hold(4, alone=alone):
            journal.append(name)
            await asyncio.sleep(0.02)

    first = asyncio.create_task(take("first"))
    await asyncio.sleep(0.01)
    rest = [
        asyncio.create_task(take("reference", alone=True)),
        asyncio.create_task(take("late")),
        asyncio.create_task(take("later")),
    ]
    await asyncio.sleep(0)
    rest[1].cancel()  # who leaves the line holds up nobody
    await asyncio.gather(first, *rest, return_exceptions=True)
    assert journal == ["first", "reference", "later"]
    assert (room.held_bytes, room.idle) == (0, True)
