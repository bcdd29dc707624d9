"""Engine and schedulers over models without weights: order, limits, faults, the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hybridlab.errors import AudioError, UnavailableError
from hybridlab.server.errors import ApiError
from tests.server.fakes import (
    OUT_OF_MEMORY,
    FakeModel,
    Stage,
    asr,
    llm,
    lost,
    played,
    refusal,
    until,
    wanted,
)


@played
async def test_an_answer_carries_its_model_and_its_times() -> None:
    async with Stage(llm()) as stage:
        said = await stage.ask("a").future
        assert (said.text, said.model, said.instead_of) == ("said a", "voxtral-pocket", "")
        assert 0 <= said.queue_time_s < 5
        assert said.work_s >= 0
        assert ("llm", "decode") in stage.phases


@played
async def test_random_weights_may_make_no_words() -> None:
    async with Stage(FakeModel("asr", ["whisper-tiny-random"], say=lambda job: "")) as stage:
        assert (await stage.ask("a", role="asr").future).text == ""


@played
async def test_what_waits_goes_through_in_one_call_up_to_the_batch_s_size() -> None:
    model = llm(serve_s=0.05)
    async with Stage(model, batch=3) as stage:
        first = stage.ask("0")
        await until(lambda: len(model.calls) == 1)
        jobs = [stage.ask(str(n)) for n in range(1, 6)]
        texts = [(await job.future).text for job in (first, *jobs)]
        assert texts == [f"said {n}" for n in range(6)]
        assert model.calls == [["0"], ["1", "2", "3"], ["4", "5"]]


@played
async def test_jobs_of_another_language_are_not_of_the_same_batch() -> None:
    model = asr(serve_s=0.03)
    async with Stage(model) as stage:
        languages = {"a": "en", "b": "en", "c": "de", "d": "en"}
        jobs = stage.engine.submit(
            *(wanted(name, role="asr", language=code) for name, code in languages.items())
        )
        await asyncio.gather(*(job.future for job in jobs))
        assert model.calls == [["a", "b"], ["c"], ["d"]]


@played
async def test_a_batch_grows_only_as_far_as_memory_allows() -> None:
    model = llm(serve_s=0.03)
    stage = Stage(model, batch=8)
    one = stage.scheduler().admission.bytes_of(audio_s=1, new_tokens=40)
    stage.budget.n_bytes = int(2.5 * one)
    async with stage:
        first = stage.ask("0")
        await until(lambda: len(model.calls) == 1)
        jobs = [stage.ask(str(n)) for n in range(1, 6)]
        await asyncio.gather(*(job.future for job in (first, *jobs)))
        assert max(map(len, model.calls)) == 2


@played
async def test_the_two_models_take_turns_at_the_device() -> None:
    """Twenty answers wait when three transcripts come: each waits for one turn at most."""
    journal: list[str] = []
    ear, mind = asr(serve_s=0.01), llm(serve_s=0.01)
    ear.journal = mind.journal = journal
    async with Stage(ear, mind, batch=1) as stage:
        jobs = [stage.ask(str(n)) for n in range(20)]
        await until(lambda: len(journal) > 1)
        begun = len(journal)
        jobs += [stage.ask(str(n), role="asr") for n in range(3)]
        await asyncio.gather(*(job.future for job in jobs))
        turns = journal[begun:][:7]
        assert turns.count("asr") == 3
        assert "llm,llm,llm" not in ",".join(turns)


@played
async def test_the_transcript_of_a_request_for_both_has_the_first_turn() -> None:
    journal: list[str] = []
    ear, mind = asr(serve_s=0.01), llm(serve_s=0.01)
    ear.journal = mind.journal = journal
    async with Stage(mind, ear) as stage:
        for _ in range(3):
            jobs = stage.engine.submit(wanted("a", role="asr"), wanted("b"))
            await asyncio.gather(*(job.future for job in jobs))
            await stage.idle()
            await asyncio.sleep(0.02)
        assert journal == ["asr", "llm"] * 3


@played
async def test_within_one_model_the_kinds_take_turns_too() -> None:
    model = llm(serve_s=0.01)
    async with Stage(model, batch=1) as stage:
        answers = [stage.ask(f"answer {n}") for n in range(6)]
        heard = stage.ask("heard", kind="transcription")
        await asyncio.gather(heard.future, *(job.future for job in answers))
        assert ["heard"] in model.calls[:3]


@pytest.mark.parametrize("at_once", [False, True])
@played
async def test_only_one_model_is_at_work_unless_both_may_be(at_once: bool) -> None:
    both = False
    async with Stage(asr(serve_s=0.05), llm(serve_s=0.05), shared=at_once) as stage:
        jobs = [stage.ask("a", role="asr"), stage.ask("b")]
        while not all(job.future.done() for job in jobs):
            both |= all(scheduler.at_work for scheduler in stage.engine.schedulers.values())
            await asyncio.sleep(0.002)
    assert both is at_once


@played
async def test_at_once_what_does_not_fit_beside_the_other_waits_for_it() -> None:
    stage = Stage(asr(serve_s=0.05), llm(serve_s=0.05), shared=True)
    schedulers = stage.engine.schedulers
    stage.budget.n_bytes = max(
        schedulers[name].admission.bytes_of(audio_s=1, new_tokens=40) for name in schedulers
    )
    async with stage:
        jobs = [stage.ask("a", role="asr"), stage.ask("b")]
        most = 0
        while not all(job.future.done() for job in jobs):
            most = max(most, stage.budget.held_bytes)
            await asyncio.sleep(0.002)
        assert 0 < most <= stage.budget.n_bytes
        assert stage.budget.held_bytes == 0


# ---------------------------------------------------------------------------------- admission


@played
async def test_an_audio_that_cannot_fit_gets_413_with_the_longest_that_would() -> None:
    async with Stage(llm(), budget_bytes=200 * 10**6) as stage:
        with pytest.raises(ApiError, match="too long") as caught:
            stage.ask("a", seconds=1200)
        assert (caught.value.status_code, caught.value.code) == (413, "audio_too_long")
        longest_s = caught.value.extra["longest_audio_s"]
        assert 30 <= longest_s < 1200
        assert (await stage.ask("b", seconds=longest_s).future).text == "said b"
        with pytest.raises(ApiError):
            stage.ask("c", seconds=longest_s + 30)


@played
async def test_a_full_queue_gets_429_with_a_time_and_takes_part_of_no_request() -> None:
    model = llm(serve_s=0.05)
    async with Stage(model, max_queue=2, batch=1) as stage:
        jobs = [stage.ask("0")]
        await until(lambda: len(model.calls) == 1)
        jobs += [stage.ask("1"), stage.ask("2")]
        with pytest.raises(ApiError) as caught:
            stage.ask("3")
        assert caught.value.status_code == 429
        assert (caught.value.retry_after_s or 0) >= 1
        jobs.pop().future.cancel()  # a place is free again, but not two
        params = wanted("4")
        with pytest.raises(ApiError):
            stage.engine.submit(params, params)
        assert stage.scheduler().queue.count("answer") == 1
        jobs += stage.engine.submit(params)
        await asyncio.gather(*(job.future for job in jobs))
        assert model.calls == [["0"], ["1"], ["4"]]


@played
async def test_nothing_is_accepted_before_the_models_are_loaded() -> None:
    stage = Stage(llm())
    with pytest.raises(ApiError, match="loading") as caught:
        stage.ask("a")
    assert caught.value.status_code == 503


# --------------------------------------------------------------------- deadlines, cancellation


@played
async def test_a_request_whose_time_is_up_while_it_waits_gets_504_and_is_never_run() -> None:
    model = llm(serve_s=0.4)
    async with Stage(model, batch=1, request_timeout_s=0.6) as stage:
        first = stage.ask("0")
        await asyncio.sleep(0.1)
        jobs = [stage.ask("1"), stage.ask("2")]
        assert (await first.future).text == "said 0"
        assert (await refusal(jobs[1].future)).status_code == 504
        await stage.idle()
        assert model.calls == [["0"], ["1"]]
        assert "kill" not in model.log  # a call that was begun late does not hang


@played
async def test_a_call_that_hangs_is_ended_at_its_deadline_and_the_next_request_is_served() -> None:
    model = llm(serve_s=60)
    async with Stage(model, request_timeout_s=0.2) as stage:
        assert (await refusal(stage.ask("hangs").future)).status_code == 504
        model.serve_s = 0.0
        assert (await stage.ask("next").future).text == "said next"
        assert model.log.count("kill") == 1
        assert model.calls == [["hangs"], ["next"]]  # not tried again: its time was up


# ------------------------------------------------------------------------------------- faults


@played
async def test_a_lost_worker_is_started_again_and_each_job_tried_once_more_by_itself() -> None:
    model = llm(plan=[lost()])
    async with Stage(model) as stage:
        jobs = [stage.ask("a"), stage.ask("b")]
        assert [(await job.future).text for job in jobs] == ["said a", "said b"]
        assert model.calls == [["a", "b"], ["a"], ["b"]]
        assert stage.scheduler().counts.restarts == 1


FULL = MemoryError(OUT_OF_MEMORY)
SAY = {"bad": "  ", "b": "said b"}


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        (llm(plan=[lost(), lost()]), 503, "worker_lost"),
        (llm(plan=[AudioError("too long for a question")]), 400, "invalid_request"),
        (llm(plan=[RuntimeError("shape mismatch")]), 500, "internal_error"),
        (llm(plan=[FULL, FULL]), 503, "out_of_memory"),
        (llm(say=lambda job: SAY[job.params.question]), 422, "empty_output"),
    ],
)
@played
async def test_what_goes_wrong_over_one_job_is_told_and_the_next_is_served(
    model: FakeModel, status: int, code: str
) -> None:
    async with Stage(model) as stage:
        found = await refusal(stage.ask("bad").future)
        assert (found.status_code, found.code) == (status, code)
        assert ("too long" in str(found), "shape" in str(found)) == (status == 400, False)
        assert (await stage.ask("b").future).text == "said b"


@played
async def test_a_job_that_loses_its_worker_twice_takes_no_other_with_it() -> None:
    async with Stage(llm(plan=[lost(), lost()])) as stage:
        jobs = [stage.ask("poison"), stage.ask("b")]
        assert (await refusal(jobs[0].future)).code == "worker_lost"
        assert (await jobs[1].future).text == "said b"


@played
async def test_the_other_model_serves_on_while_one_is_lost() -> None:
    ear, mind = asr(), llm(plan=[lost(), lost()])
    async with Stage(ear, mind) as stage:
        doomed = stage.ask("a")
        heard = [stage.ask(str(n), role="asr") for n in range(3)]
        assert [(await job.future).text for job in heard] == ["said 0", "said 1", "said 2"]
        assert (await refusal(doomed.future)).code == "worker_lost"
        assert ear.log.count("load whisper-pocket-m") == 1


@played
async def test_a_worker_that_cannot_be_restarted_fails_its_model() -> None:
    model = llm(plan=[lost()])

    def switch_to(index: int) -> None:
        raise lost()

    async with Stage(model) as stage:
        model.switch_to = switch_to  # type: ignore[method-assign]
        job = stage.ask("a")
        assert (await refusal(job.future)).code == "model_failed"
        assert "cannot be restarted" in stage.engine.failed
        with pytest.raises(ApiError):
            stage.ask("b")


@played
async def test_a_fault_over_a_batch_is_the_fault_of_one_alone() -> None:
    bad = RuntimeError("shape mismatch")
    model = llm(plan=[bad, None, bad])
    async with Stage(model) as stage:
        good, evil = stage.ask("good"), stage.ask("evil")
        assert (await good.future).text == "said good"
        found = await refusal(evil.future)
        assert (found.status_code, "shape" in str(found)) == (500, False)


@played
async def test_too_few_texts_for_a_batch_are_a_fault() -> None:
    model = llm()
    infer = model.infer

    async def too_few(jobs: Any, on_text: Any) -> Any:
        found = await infer(jobs, on_text)
        found.texts.pop()
        return found

    model.infer = too_few  # type: ignore[method-assign]
    async with Stage(model) as stage:
        assert (await refusal(stage.ask("a").future)).status_code == 500


# ----------------------------------------------------------------------------------- fallback


@played
async def test_out_of_memory_over_a_batch_is_tried_one_by_one_before_anything_is_given_up() -> None:
    model = asr("large-v3", "medium", plan=[MemoryError(OUT_OF_MEMORY)])
    async with Stage(model) as stage:
        jobs = [stage.ask(name, role="asr") for name in "ab"]
        said = [await job.future for job in jobs]
        assert {s.model for s in said} == {"whisper-large-v3"}
        assert "release" in model.log
        assert stage.scheduler("asr").counts.ooms == 1


@played
async def test_out_of_memory_falls_back_to_a_smaller_model_and_returns() -> None:
    full = [MemoryError(OUT_OF_MEMORY) for _ in range(2)]  # also the trial after the first
    model = asr("large-v3", "medium", "base", plan=[*full], too_large={"whisper-medium"})
    async with Stage(model, retry_larger_after_s=0.1) as stage:
        # it loaded once, so that medium is what does not fit any more
        said = await stage.ask("a", role="asr").future
        assert (said.model, said.instead_of) == ("whisper-base", "whisper-large-v3")
        counts = stage.scheduler("asr").counts
        assert (counts.ooms, counts.fallbacks) == (2, 1)
        await asyncio.sleep(0.2)
        assert model.active == 2  # the next larger one still does not fit
        model.too_large.clear()
        await until(lambda: model.active == 0)
        said = await stage.ask("b", role="asr").future
        assert (said.model, said.instead_of) == ("whisper-large-v3", "")
        assert counts.returns_to_larger == 2


@played
async def test_a_whisper_that_does_not_load_beside_voxtral_is_replaced_at_the_start() -> None:
    model = asr("large-v3", "medium", "base", too_large={"whisper-large-v3"})
    async with Stage(model, llm()) as stage:
        said = await stage.ask("a", role="asr").future
        assert (said.model, said.instead_of) == ("whisper-medium", "whisper-large-v3")


@played
async def test_where_no_size_fits_any_more_the_model_has_failed() -> None:
    model = asr("medium", "base", plan=[MemoryError(OUT_OF_MEMORY) for _ in range(2)])
    async with Stage(model) as stage:
        model.too_large = {"whisper-base"}
        jobs = [stage.ask("a", role="asr")]
        assert (await refusal(jobs[0].future)).status_code == 503
        await until(lambda: "no model of the asr fits" in stage.engine.failed)


@played
async def test_a_server_whose_smallest_model_does_not_fit_does_not_start() -> None:
    stage = Stage(asr("medium", "base", too_large={"whisper-medium", "whisper-base"}))
    with pytest.raises(UnavailableError, match="whisper-base does not fit"):
        await stage.engine.load()
    await stage.engine.stop()


# ---------------------------------------------------------------------------- swaps, the end


@played
async def test_swapped_weights_stay_for_the_next_batch_but_not_for_the_other_s_turn() -> None:
    ear, mind = asr(serve_s=0.02, swaps=True), llm(serve_s=0.02)
    async with Stage(ear, mind, batch=1) as stage:
        jobs = [stage.ask(name, role="asr") for name in "abc"]
        await asyncio.gather(*(job.future for job in jobs))
        await until(lambda: "offload" in ear.log)
        assert ear.log.count("offload") == 1
        jobs = [stage.ask(name, role="asr") for name in "abc"]
        jobs += [stage.ask(name) for name in "abc"]
        await asyncio.gather(*(job.future for job in jobs))
        await until(lambda: ear.log.count("offload") == 4)
        assert "offload" not in mind.log


@played
async def test_draining_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async with Stage(llm(serve_s=0.02), batch=1) as stage:
        jobs = [stage.ask(str(n)) for n in range(8)]
        stage.engine.draining = True
        with pytest.raises(ApiError) as caught:
            stage.ask("late")
        assert (caught.value.status_code, caught.value.code) == (503, "stopping")
        said = await asyncio.gather(*(job.future for job in jobs))
        assert [one.text for one in said] == [f"said {n}" for n in range(8)]
