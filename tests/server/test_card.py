"""The real server on a GPU, or on a simulated one: whose the card's bytes are, what each worker
gives back for the other, strangers, killed workers, the end."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import get_args

import httpx
import numpy as np
import pytest
import soundfile

from benchmarks.endurance.server import started
from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import procfs
from hybridlab.devices.nvml import nvml_memory, nvml_process_bytes
from hybridlab.devices.visible import visible_gpus
from hybridlab.models.http_model import chat_body
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.planner.memory_plan import cublas_workspace_bytes
from hybridlab.processes.fork_server import CaseServer
from hybridlab.processes.worker import Worker
from hybridlab.server.engine import Engine
from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import InferenceJob, InferenceParams
from hybridlab.server.model_client import WorkerModelClient
from hybridlab.server.model_pool import ModelPool
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Role, Settings
from hybridlab.units import GIB, MIB
from tests.server.fakes import InProcessDecoder, silence, until
from tests.server.in_process import Served, in_process
from tests.workers_at_work import alive, fill_card, wait_until

pytestmark = pytest.mark.gpu


def about_bytes() -> int:
    """What a server's contexts, small blocks and cuBLAS workspaces (one for each of two workers,
    larger from Hopper on) may change by beside what a test is about."""
    return 32 * MIB + 2 * cublas_workspace_bytes(visible_gpus()[0].capability)


@contextmanager
def stranger(*, leaves_bytes: int) -> Iterator[int]:
    """Another program, which holds all of the card but so much: how much that is."""
    before = used_bytes()
    with Worker("stranger") as worker:
        worker.call(fill_card, leaves_bytes)
        held = used_bytes() - before
        yield held
        beside = used_bytes() - held
    assert wait_until(lambda: used_bytes() < beside + MIB)


def used_bytes() -> int:
    return int(nvml_memory(0).used)


def flac(seconds: float) -> bytes:
    at = np.arange(round(seconds * 16_000)) / 16_000
    file = io.BytesIO()
    tone = (0.3 * np.sin(2 * np.pi * 440 * at)).astype(np.float32)
    soundfile.write(file, tone, 16_000, format="FLAC")
    return file.getvalue()


#: Real speech of some windows.
LONG = max(load_clips(), key=lambda clip: clip.audio_s).path.read_bytes()


def transcribe(server: Served, sound: bytes = LONG) -> httpx.Response:
    form = {"files": {"file": sound}, "data": {"model": "whisper-1"}}
    return httpx.post(f"{server.url}/v1/audio/transcriptions", timeout=120, **form)


def ask(server: Served, seconds: float) -> httpx.Response:
    body = chat_body("voxtral", flac(seconds), "What is said?", max_tokens=4)
    kind = {"Content-Type": "application/json"}
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, content=body, headers=kind, timeout=120)


SERVED = (200, 422)  # a tone has no words


@pytest.fixture(scope="module")
def before() -> int:
    """In use before the server came."""
    return used_bytes()


@pytest.fixture(scope="module")
def server(case_server: CaseServer, before: int) -> Iterator[Served]:
    with in_process(Settings(device="cuda", port=0)) as served:
        yield served
    assert used_bytes() < before + MIB


def metrics(server: Served, name: str) -> dict[str, float]:
    """A metric's values by the last of its labels."""
    text = httpx.get(f"{server.url}/metrics", timeout=30).text
    rows = re.findall(rf'^hybridlab_{name}(?:{{.*"(.+)"}})? (\S+)$', text, flags=re.MULTILINE)
    return {label: float(value) for label, value in rows}


def pid_of(server: Served, role: Role) -> int:
    assert server.engine.pool is not None
    (pid,) = (m.remote.worker.pid for m in server.engine.pool.models if m.role == role)
    assert pid is not None
    return pid


def test_each_byte_of_the_card_has_its_owner(server: Served, before: int) -> None:
    """Workers' contexts and caches are no others'."""
    assert transcribe(server).status_code == 200
    assert ask(server, 90).status_code in SERVED
    found = metrics(server, "ledger_bytes")
    assert abs(found["others"] - before) < about_bytes()
    assert sum(found.values()) == pytest.approx(used_bytes(), abs=MIB)
    own = nvml_process_bytes(0)
    pids = [pid_of(server, role) for role in get_args(Role)]
    if all(pid in own for pid in pids):  # a driver in a container may not say
        assert found["workers' contexts"] > 0
        held = sum(own[pid] for pid in pids)
        assert held == pytest.approx(sum(found.values()) - found["others"], abs=MIB)


def test_a_stranger_is_others_and_the_margin_is_less_by_it(server: Served) -> None:
    def read() -> tuple[float, float]:
        others = metrics(server, "ledger_bytes")["others"]
        return others, metrics(server, "margin_bytes")[""]

    others, margin = read()
    with stranger(leaves_bytes=512 * MIB) as held:
        assert read() == pytest.approx((others + held, margin - held), abs=about_bytes())
    assert read() == pytest.approx((others, margin), abs=about_bytes())


def test_a_stranger_that_leaves_nothing_is_named_and_nobody_steps_down(server: Served) -> None:
    assert server.engine.pool is not None
    for model in server.engine.pool.models:
        model.release_cache()  # else a request may do with what its worker has kept
    with stranger(leaves_bytes=4 * MIB):
        found = transcribe(server, flac(30))
        assert (found.status_code, found.json()["error"]["code"]) == (503, "out_of_memory")
        said = found.json()["error"]["message"]
        assert re.match(r"another program holds [\d.]+ [GM]iB of the card", said)
        assert "shorter" not in said
    assert ask(server, 30).status_code in SERVED
    assert metrics(server, "fallbacks_total")["asr"] == 0


def test_a_worker_killed_at_work_leaves_nothing_on_the_card(server: Served) -> None:
    expected = transcribe(server).json()
    assert expected["text"]
    held, pid = used_bytes(), pid_of(server, "asr")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(transcribe, server)
        assert wait_until(lambda: metrics(server, "at_work")["asr"] == 1)
        os.kill(pid, signal.SIGKILL)
        assert answer.result().json() == expected
    assert pid_of(server, "asr") != pid
    assert pid not in nvml_process_bytes(0)
    assert used_bytes() < held + about_bytes()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_the_server_is_not_on_the_card_and_its_end_leaves_nothing_there(
    end: signal.Signals,
) -> None:
    before = used_bytes()
    options = ["--device", "cuda", "--only", "asr", "--asr-model", "pocket-s"]
    with started(*options) as running:
        assert used_bytes() > before
        server, *others = procfs.process_tree(running.process.pid)
        assert server not in nvml_process_bytes(0)
        running.process.send_signal(end)
        running.ended()
        assert wait_until(lambda: used_bytes() < before + MIB)
        assert wait_until(lambda: not any(map(alive, others)))


# ------------------------------------------------------------------------- without HTTP


def free_bytes(pool: ModelPool) -> int:
    free = pool.memory.free_bytes()
    assert free is not None
    return free


POCKET = {"strategy": "parallel", "variant": "processes"}
FULL_SIZE = {
    "llm_model": "mini-3b",
    "llm_weights": "random",
    "llm_dtype": "float16",
    "asr_model": "medium",
    "asr_weights": "random",
    "asr_backend": "transformers",
    "asr_dtype": "float16",
}


@pytest.mark.usefixtures("case_server")
@pytest.mark.parametrize(
    ("options", "weights_bytes", "seconds"),
    [(POCKET, 0, (600, 105)), (FULL_SIZE, 10.5 * GIB, (265, 205))],
    ids=["pocket", "full size"],
)
def test_what_was_asked_before_decides_nothing(
    options: dict[str, str], weights_bytes: float, seconds: tuple[float, float]
) -> None:
    """None runs out of memory in either order; and where nothing says beforehand that memory will
    lack, it is tried again. `seconds`: audio for one call of ASR and LLM, long enough to need more
    than the card has left beside what the other's call has kept."""
    if nvml_memory(0).free < weights_bytes + 3500 * MIB:
        pytest.skip("the card is too small, or others hold too much of it")

    async def scene(pool: ModelPool) -> None:
        engine = Engine(pool.settings)
        engine.attach(pool.schedulers(), InProcessDecoder())
        await engine.load()
        pool.measure_budget()
        engine.run()
        asr, llm = engine.schedulers["asr"], engine.schedulers["llm"]
        kept = {}
        for scheduler in (asr, llm):
            await served(engine, scheduler)
            kept[scheduler.role] = pool.memory.owners(idle=True)["allocator cache"]
            await scheduler.supervisor.release_cache()
            scheduler.counts.cache_clears = 0
        least, most = sorted(kept.values())
        if least < 2 * about_bytes():  # attention kernels of Ampere and later need less
            pytest.skip(f"a call of {least} bytes is too small to tell on this card")
        # room for either call, and not for it beside what the other has kept
        leaves_bytes = most + min(least // 2, 512 * MIB)
        with stranger(leaves_bytes=leaves_bytes):
            pool.budget.refresh()
            room = pool.budget.margin_bytes
            for n, scheduler in enumerate([asr, llm, asr, llm]):
                if n == 3:
                    llm._lacks = lambda n_bytes: False  # type: ignore[method-assign]
                await served(engine, scheduler)
                assert pool.budget.margin_bytes == pytest.approx(room, abs=about_bytes())
                now = pool.memory.owners(idle=True)["allocator cache"]
                assert now == pytest.approx(kept[scheduler.role], abs=about_bytes())
        assert (asr.counts.ooms, llm.counts.ooms) == (0, 1)
        assert (asr.counts.fallbacks, asr.counts.cache_clears) == (0, 2)
        await engine.stop()

    async def served(engine: Engine, scheduler: ModelScheduler) -> None:
        llm = scheduler is engine.schedulers["llm"]
        wish = InferenceParams(
            role=scheduler.role,
            kind="answer" if llm else "transcription",
            audio=silence(seconds[llm]),
            question="What is said?",
            options=TranscribeOptions(max_new_tokens=2),
        )
        (job,) = engine.submit(wish)
        try:
            await job.future
        except ApiError as refusal:
            assert refusal.code == "empty_output"  # silence has none
        await until(lambda: not scheduler.at_work)

    with closing(ModelPool(Settings.from_mapping({"device": "cuda", **options}))) as pool:
        asyncio.run(asyncio.wait_for(scene(pool), 280))


@pytest.mark.usefixtures("case_server")
@pytest.mark.parametrize("variant", ["reload-cached", "module-to-cpu", "pinned", "single-buffer"])
def test_weights_that_leave_the_card_leave_it_for_the_other_process(variant: str) -> None:
    settings = Settings(
        device="cuda",
        asr_model="base",
        asr_weights="random",
        asr_backend="transformers",
        strategy="swapping",
        variant=variant,
        fallback="none",
    )

    async def served(model: WorkerModelClient) -> None:
        params = InferenceParams(role="asr", kind="transcription", audio=silence(5))
        job = InferenceJob(params, 2, asyncio.get_running_loop().create_future())
        await model.infer([job])

    with closing(ModelPool(settings)) as pool:
        (model,) = (model for model in pool.models if model.role == "asr")
        reserved = model.remote.member.reserved_bytes
        weights = catalog.whisper("base").parameters * 2
        model.load()
        assert reserved() < weights / 2
        asyncio.run(served(model))
        model.offload()  # from here on its context has grown
        away = free_bytes(pool)
        asyncio.run(served(model))
        assert reserved() > weights
        assert model.offloadable_bytes >= weights
        there = free_bytes(pool)
        model.offload()
        assert reserved() < weights / 2
        assert (model.offloadable_bytes, model.cached_bytes) == (0, 0)
        assert there < away - weights / 2 < free_bytes(pool)
