"""The orchestrator over tenants without models: order, limits, faults, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hybridlab.errors import AudioError, UnavailableError, WorkerLostError
from hybridlab.server.engine import Wish
from hybridlab.server.refusals import RefusalError
from tests.server.fakes import OUT_OF_MEMORY, FakeTenant, Stage, sound, until, voxtral, whisper

Scene = Callable[[], Coroutine[Any, Any, None]]


def lost() -> WorkerLostError:
    return WorkerLostError("the worker was lost: ended by SIGKILL")


def run(scene: Scene) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20))


async def refusal(future: asyncio.Future[Any]) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        await future
    return caught.value


def test_an_answer_carries_its_model_and_its_times() -> None:
    async def scene() -> None:
        async with Stage(voxtral()) as stage:
            said = await stage.ask("a").future
            assert (said.text, said.model, said.instead_of) == ("said a", "voxtral-pocket", "")
            assert 0 <= said.waited_s < 5
            assert said.worked_s >= 0
            assert ("voxtral", "decode") in stage.phases

    run(scene)


def test_random_weights_may_make_no_words() -> None:
    async def scene() -> None:
        mute = FakeTenant("whisper", ["whisper-tiny-random"], say=lambda job: "")
        async with Stage(mute) as stage:
            assert (await stage.ask("a", tenant="whisper").future).text == ""
        async with Stage(voxtral(say=lambda job: "")) as stage:
            assert (await refusal(stage.ask("a").future)).code == "no_words"

    run(scene)


def test_what_waits_goes_through_in_one_call_up_to_the_batch_s_size() -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=0.05)
        async with Stage(tenant, batch=3) as stage:
            first = stage.ask("0")
            await until(lambda: len(tenant.calls) == 1)
            jobs = [stage.ask(str(n)) for n in range(1, 6)]
            texts = [(await job.future).text for job in (first, *jobs)]
            assert texts == [f"said {n}" for n in range(6)]
            assert tenant.calls == [["0"], ["1", "2", "3"], ["4", "5"]]

    run(scene)


def test_jobs_of_another_language_are_not_of_the_same_batch() -> None:
    async def scene() -> None:
        tenant = whisper(serve_s=0.03)
        async with Stage(tenant) as stage:
            jobs = stage.engine.submit(
                *(
                    Wish(
                        tenant="whisper",
                        kind="transcription",
                        sound=sound(),
                        question=name,
                        language=language,
                    )
                    for name, language in (("a", "en"), ("b", "en"), ("c", "de"), ("d", "en"))
                )
            )
            await asyncio.gather(*(job.future for job in jobs))
            assert tenant.calls == [["a", "b"], ["c"], ["d"]]

    run(scene)


def test_a_batch_grows_only_as_far_as_memory_allows() -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=0.03)
        stage = Stage(tenant, batch=8)
        one = stage.engine.lanes["voxtral"].admission.bytes_of(audio_s=1, new_tokens=40)
        stage.room.n_bytes = int(2.5 * one)
        async with stage:
            first = stage.ask("0")
            await until(lambda: len(tenant.calls) == 1)
            jobs = [stage.ask(str(n)) for n in range(1, 6)]
            await asyncio.gather(*(job.future for job in (first, *jobs)))
            assert max(map(len, tenant.calls)) == 2

    run(scene)


def test_the_two_kinds_of_request_take_turns_at_the_device() -> None:
    """Twenty answers wait when three transcripts come: each waits for one turn at most."""

    async def scene() -> None:
        journal: list[str] = []
        ear, mind = whisper(serve_s=0.01), voxtral(serve_s=0.01)
        ear.journal = mind.journal = journal
        async with Stage(ear, mind, batch=1) as stage:
            jobs = [stage.ask(str(n)) for n in range(20)]
            await until(lambda: len(journal) > 1)
            begun = len(journal)
            jobs += [stage.ask(str(n), tenant="whisper") for n in range(3)]
            await asyncio.gather(*(job.future for job in jobs))
            turns = journal[begun:][:7]
            assert turns.count("whisper") == 3
            assert "voxtral,voxtral,voxtral" not in ",".join(turns)

    run(scene)


def test_the_transcript_of_a_request_for_both_has_the_first_turn() -> None:
    async def scene() -> None:
        journal: list[str] = []
        ear, mind = whisper(serve_s=0.01), voxtral(serve_s=0.01)
        ear.journal = mind.journal = journal
        async with Stage(mind, ear) as stage:
            for _ in range(3):
                heard = Wish(tenant="whisper", kind="transcription", sound=sound(), question="a")
                asked = Wish(tenant="voxtral", kind="answer", sound=sound(), question="b")
                jobs = stage.engine.submit(heard, asked)
                await asyncio.gather(*(job.future for job in jobs))
                await until(lambda: not any(lane.at_work for lane in stage.engine.lanes.values()))
                await asyncio.sleep(0.02)
            assert journal == ["whisper", "voxtral"] * 3

    run(scene)


def test_within_one_tenant_the_kinds_take_turns_too() -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=0.01)
        async with Stage(tenant, batch=1) as stage:
            answers = [stage.ask(f"answer {n}") for n in range(6)]
            wish = Wish(tenant="voxtral", kind="transcription", sound=sound(), question="heard")
            (heard,) = stage.engine.submit(wish)
            await asyncio.gather(heard.future, *(job.future for job in answers))
            assert ["heard"] in tenant.calls[:3]

    run(scene)


@pytest.mark.parametrize("at_once", [False, True])
def test_only_one_tenant_is_at_work_unless_both_may_be(at_once: bool) -> None:
    async def scene() -> None:
        both = False
        async with Stage(whisper(serve_s=0.05), voxtral(serve_s=0.05), at_once=at_once) as stage:
            jobs = [stage.ask("a", tenant="whisper"), stage.ask("b")]
            while not all(job.future.done() for job in jobs):
                both |= all(lane.at_work for lane in stage.engine.lanes.values())
                await asyncio.sleep(0.002)
        assert both is at_once

    run(scene)


def test_at_once_what_does_not_fit_beside_the_other_waits_for_it() -> None:
    async def scene() -> None:
        stage = Stage(whisper(serve_s=0.05), voxtral(serve_s=0.05), at_once=True)
        lanes = stage.engine.lanes
        stage.room.n_bytes = max(
            lanes[name].admission.bytes_of(audio_s=1, new_tokens=40) for name in lanes
        )
        async with stage:
            jobs = [stage.ask("a", tenant="whisper"), stage.ask("b")]
            most = 0
            while not all(job.future.done() for job in jobs):
                most = max(most, stage.room.held_bytes)
                await asyncio.sleep(0.002)
            assert 0 < most <= stage.room.n_bytes
            assert stage.room.held_bytes == 0

    run(scene)


# ---------------------------------------------------------------------------------- admission


def test_an_audio_that_cannot_fit_gets_413_with_the_longest_that_would() -> None:
    async def scene() -> None:
        async with Stage(voxtral(), room_bytes=200 * 10**6) as stage:
            with pytest.raises(RefusalError, match="too long") as caught:
                stage.ask("a", seconds=1200)
            assert (caught.value.status, caught.value.code) == (413, "audio_too_long")
            longest_s = caught.value.extra["longest_audio_s"]
            assert 30 <= longest_s < 1200
            assert (await stage.ask("b", seconds=longest_s).future).text == "said b"
            with pytest.raises(RefusalError):
                stage.ask("c", seconds=longest_s + 30)

    run(scene)


def test_a_full_queue_gets_429_with_a_time_and_takes_part_of_no_request() -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=0.05)
        async with Stage(tenant, queue=2, batch=1) as stage:
            jobs = [stage.ask("0")]
            await until(lambda: len(tenant.calls) == 1)
            jobs += [stage.ask("1"), stage.ask("2")]
            with pytest.raises(RefusalError) as caught:
                stage.ask("3")
            assert caught.value.status == 429
            assert (caught.value.retry_after_s or 0) >= 1
            jobs.pop().future.cancel()  # a place is free again, but not two
            wish = Wish(tenant="voxtral", kind="answer", sound=sound(), question="4")
            with pytest.raises(RefusalError):
                stage.engine.submit(wish, wish)
            assert stage.engine.lanes["voxtral"].waiting.count("answer") == 1
            jobs += stage.engine.submit(wish)
            await asyncio.gather(*(job.future for job in jobs))
            assert tenant.calls == [["0"], ["1"], ["4"]]

    run(scene)


def test_nothing_is_accepted_before_the_models_are_loaded() -> None:
    async def scene() -> None:
        stage = Stage(voxtral())
        with pytest.raises(RefusalError, match="loading") as caught:
            stage.ask("a")
        assert caught.value.status == 503

    run(scene)


# --------------------------------------------------------------------- deadlines, cancellation


def test_a_request_whose_time_is_up_while_it_waits_gets_504_and_is_never_run() -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=0.4)
        async with Stage(tenant, batch=1, request_timeout_s=0.6) as stage:
            first = stage.ask("0")
            await asyncio.sleep(0.1)
            jobs = [stage.ask("1"), stage.ask("2")]
            assert (await first.future).text == "said 0"
            assert (await refusal(jobs[1].future)).status == 504
            await until(lambda: not stage.engine.lanes["voxtral"].at_work)
            assert tenant.calls == [["0"], ["1"]]
            assert "kill" not in tenant.log  # a call that was begun late does not hang

    run(scene)


def test_a_call_that_hangs_is_ended_at_its_deadline_and_the_next_request_is_served() -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=60)
        async with Stage(tenant, request_timeout_s=0.2) as stage:
            assert (await refusal(stage.ask("hangs").future)).status == 504
            tenant.serve_s = 0.0
            assert (await stage.ask("next").future).text == "said next"
            assert tenant.log.count("kill") == 1
            assert tenant.calls == [["hangs"], ["next"]]  # not tried again: its time was up

    run(scene)


def test_a_request_whose_client_goes_away_is_not_run() -> None:
    async def scene() -> None:
        tenant = voxtral(serve_s=0.05)
        async with Stage(tenant, batch=1) as stage:
            jobs = [stage.ask(str(n)) for n in range(3)]
            await until(lambda: len(tenant.calls) == 1)
            jobs[1].future.cancel()
            assert (await jobs[2].future).text == "said 2"
            assert tenant.calls == [["0"], ["2"]]

    run(scene)


# ------------------------------------------------------------------------------------- faults


def test_a_lost_worker_is_started_again_and_each_job_tried_once_more_by_itself() -> None:
    async def scene() -> None:
        tenant = voxtral(plan=[lost()])
        async with Stage(tenant) as stage:
            jobs = [stage.ask("a"), stage.ask("b")]
            assert [(await job.future).text for job in jobs] == ["said a", "said b"]
            assert tenant.calls == [["a", "b"], ["a"], ["b"]]
            assert stage.engine.lanes["voxtral"].counts.restarts == 1

    run(scene)


def test_a_job_that_loses_its_worker_twice_gets_503_and_takes_nobody_with_it() -> None:
    async def scene() -> None:
        tenant = voxtral(plan=[lost(), lost()])
        async with Stage(tenant) as stage:
            jobs = [stage.ask("poison"), stage.ask("b")]
            assert (await refusal(jobs[0].future)).status == 503
            assert (await jobs[1].future).text == "said b"

    run(scene)


def test_the_other_tenant_serves_on_while_one_is_lost() -> None:
    async def scene() -> None:
        ear, mind = whisper(), voxtral(plan=[lost(), lost()])
        async with Stage(ear, mind) as stage:
            doomed = stage.ask("a")
            heard = [stage.ask(str(n), tenant="whisper") for n in range(3)]
            assert [(await job.future).text for job in heard] == ["said 0", "said 1", "said 2"]
            assert (await refusal(doomed.future)).code == "worker_lost"
            assert ear.log.count("load whisper-pocket-m") == 1

    run(scene)


def test_a_worker_that_never_starts_again_breaks_its_lane_loudly() -> None:
    async def scene() -> None:
        tenant = voxtral(plan=[lost()])

        def use(rung: int) -> None:
            raise lost()

        async with Stage(tenant) as stage:
            tenant.use = use  # type: ignore[method-assign]
            job = stage.ask("a")
            assert (await refusal(job.future)).code == "broken"
            assert "cannot be started again" in stage.engine.broken
            with pytest.raises(RefusalError):
                stage.ask("b")

    run(scene)


def test_a_fault_over_a_batch_is_the_fault_of_one_alone() -> None:
    async def scene() -> None:
        bad = RuntimeError("shape mismatch")
        tenant = voxtral(plan=[bad, None, bad])
        async with Stage(tenant) as stage:
            good, evil = stage.ask("good"), stage.ask("evil")
            assert (await good.future).text == "said good"
            found = await refusal(evil.future)
            assert (found.status, "shape" in str(found)) == (500, False)

    run(scene)


def test_what_the_audio_itself_is_at_fault_for_is_told_to_its_sender() -> None:
    async def scene() -> None:
        async with Stage(voxtral(plan=[AudioError("too long for a question")])) as stage:
            found = await refusal(stage.ask("a").future)
            assert (found.status, str(found)) == (400, "too long for a question")

    run(scene)


def test_an_empty_text_is_never_an_answer() -> None:
    async def scene() -> None:
        async with Stage(voxtral(say=lambda job: "  ")) as stage:
            assert (await refusal(stage.ask("a").future)).status == 422

    run(scene)


def test_too_few_texts_for_a_batch_are_a_fault() -> None:
    async def scene() -> None:
        tenant = voxtral()
        served = tenant.serve

        def short(jobs: Any) -> Any:
            outcome = served(jobs)
            outcome.texts.pop()
            return outcome

        tenant.serve = short  # type: ignore[method-assign]
        async with Stage(tenant) as stage:
            assert (await refusal(stage.ask("a").future)).status == 500

    run(scene)


# ------------------------------------------------------------------------------------- ladder


def test_out_of_memory_over_a_batch_is_tried_one_by_one_before_anything_is_given_up() -> None:
    async def scene() -> None:
        tenant = whisper("large-v3", "medium", plan=[MemoryError(OUT_OF_MEMORY)])
        async with Stage(tenant) as stage:
            jobs = [stage.ask(name, tenant="whisper") for name in "ab"]
            said = [await job.future for job in jobs]
            assert {s.model for s in said} == {"whisper-large-v3"}
            assert "clean" in tenant.log
            assert stage.engine.lanes["whisper"].counts.ooms == 1

    run(scene)


def test_out_of_memory_steps_down_the_ladder_says_so_and_climbs_back() -> None:
    async def scene() -> None:
        full = [MemoryError(OUT_OF_MEMORY) for _ in range(2)]  # also the trial after the first
        tenant = whisper("large-v3", "medium", "base", plan=[*full], too_large={"whisper-medium"})
        async with Stage(tenant, climb_after_s=0.1) as stage:
            # it loaded once, so that medium is what does not fit any more
            said = await stage.ask("a", tenant="whisper").future
            assert (said.model, said.instead_of) == ("whisper-base", "whisper-large-v3")
            counts = stage.engine.lanes["whisper"].counts
            assert (counts.ooms, counts.fallbacks) == (2, 1)
            await asyncio.sleep(0.2)
            assert tenant.rung == 2  # the next larger one still does not fit
            tenant.too_large.clear()
            await until(lambda: tenant.rung == 0)
            said = await stage.ask("b", tenant="whisper").future
            assert (said.model, said.instead_of) == ("whisper-large-v3", "")
            assert counts.climbs == 2

    run(scene)


def test_a_whisper_that_does_not_load_beside_voxtral_is_replaced_at_the_start() -> None:
    async def scene() -> None:
        tenant = whisper("large-v3", "medium", "base", too_large={"whisper-large-v3"})
        async with Stage(tenant, voxtral()) as stage:
            said = await stage.ask("a", tenant="whisper").future
            assert (said.model, said.instead_of) == ("whisper-medium", "whisper-large-v3")

    run(scene)


def test_where_no_model_fits_any_more_the_lane_is_broken_loudly() -> None:
    async def scene() -> None:
        tenant = whisper("medium", "base", plan=[MemoryError(OUT_OF_MEMORY) for _ in range(2)])
        async with Stage(tenant) as stage:
            tenant.too_large = {"whisper-base"}
            jobs = [stage.ask("a", tenant="whisper")]
            assert (await refusal(jobs[0].future)).status == 503
            await until(lambda: "no model of whisper fits" in stage.engine.broken)

    run(scene)


def test_a_server_whose_smallest_model_does_not_fit_does_not_start() -> None:
    async def scene() -> None:
        stage = Stage(whisper("medium", "base", too_large={"whisper-medium", "whisper-base"}))
        with pytest.raises(UnavailableError, match="whisper-base does not fit"):
            await stage.engine.load()
        await stage.engine.close()

    run(scene)


def test_out_of_memory_without_a_smaller_model_is_an_error_with_a_status() -> None:
    async def scene() -> None:
        full = [MemoryError(OUT_OF_MEMORY) for _ in range(2)]
        async with Stage(voxtral(plan=[*full])) as stage:
            found = await refusal(stage.ask("a").future)
            assert (found.status, found.code) == (503, "out_of_memory")
            assert (await stage.ask("b").future).text == "said b"

    run(scene)


# ----------------------------------------------------------------------- housekeeping, the end


def test_memory_is_cleaned_every_so_many_calls() -> None:
    async def scene() -> None:
        tenant = voxtral()
        async with Stage(tenant, clean_every=2) as stage:
            for name in "abcde":
                await stage.ask(name).future
            await until(lambda: not stage.engine.lanes["voxtral"].at_work)
            assert tenant.log.count("clean") == stage.engine.lanes["voxtral"].counts.cleanings == 2

    run(scene)


def test_swapped_weights_stay_for_the_next_batch_but_not_for_the_other_s_turn() -> None:
    async def scene() -> None:
        ear, mind = whisper(serve_s=0.02, swaps=True), voxtral(serve_s=0.02)
        async with Stage(ear, mind, batch=1) as stage:
            jobs = [stage.ask(name, tenant="whisper") for name in "abc"]
            await asyncio.gather(*(job.future for job in jobs))
            await until(lambda: "leave" in ear.log)
            assert ear.log.count("leave") == 1
            jobs = [stage.ask(name, tenant="whisper") for name in "abc"]
            jobs += [stage.ask(name) for name in "abc"]
            await asyncio.gather(*(job.future for job in jobs))
            await until(lambda: ear.log.count("leave") == 4)
            assert "leave" not in mind.log

    run(scene)


def test_a_fragmented_worker_is_started_again_between_two_requests() -> None:
    async def scene() -> None:
        tenant = voxtral(fragmented=0.4)
        async with Stage(tenant, restart_above=0.5) as stage:
            await stage.ask("a").future
            await until(lambda: not stage.engine.lanes["voxtral"].at_work)
            tenant.fragmented = 0.6
            await stage.ask("b").future
            await until(lambda: not stage.engine.lanes["voxtral"].at_work)
            assert tenant.log.count("load voxtral-pocket") == 2

    run(scene)


def test_draining_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async def scene() -> None:
        async with Stage(voxtral(serve_s=0.02), batch=1) as stage:
            jobs = [stage.ask(str(n)) for n in range(8)]
            draining = asyncio.create_task(stage.engine.drain())
            await asyncio.sleep(0)
            with pytest.raises(RefusalError) as caught:
                stage.ask("late")
            assert (caught.value.status, caught.value.code) == (503, "stopping")
            await draining
            assert all(job.future.done() for job in jobs)
            assert [job.future.result().text for job in jobs] == [f"said {n}" for n in range(8)]

    run(scene)
