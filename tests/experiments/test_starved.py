"""No memory left in each phase in turn: a real failure of the allocator, said with its phase, after
which the same process serves the same batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridlab.audio import load_clips, read_audio
from hybridlab.devices import CpuDevice
from hybridlab.devices.memory_limit import make_memory_limit
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.models import TranscribeOptions, make_asr, make_llm
from hybridlab.processes.fork_server import CaseServer
from hybridlab.strategies import make_strategy
from tests.sessions import VOXTRAL, WHISPER

#: So many clips at once that every phase asks for megabytes, which no free list still holds.
BATCH = 24
ROOM_BYTES = 256 * 1024
#: The head of a pocket model is left out: its logits fit into what malloc still holds.
PHASES = [
    *("asr prepare", "asr encode", "asr prefill", "asr decode"),
    *("llm prepare", "llm encode", "llm prefill", "llm decode"),
]


def starve(path: str) -> None:
    """A batch is served with no memory left from a phase on, for each phase in turn: a try that
    reaches its phase has got over the one before. Then it is served with memory enough."""
    device = CpuDevice()
    device.count_exactly()
    whisper = make_asr(replace(WHISPER, backend="transformers"), device)
    strategy = make_strategy("sequential", "plain", asr=whisper, llm=make_llm(VOXTRAL, device))
    strategy.open()
    clip = min(load_clips(""), key=lambda clip: clip.audio_s)
    batch = [read_audio(Path(clip.path))] * BATCH
    questions = ["What is the first digit?"] * BATCH
    said: dict[str, dict[str, Any]] = {}
    with make_memory_limit(device) as limit:

        def enter(name: str) -> None:
            found["phase"] = name or found["phase"]
            if name == phase:
                device.release()
                limit.leave(ROOM_BYTES)

        for phase in (*PHASES, "afterwards"):
            found = said[phase] = {"phase": None, "oom": False}
            for model in strategy.models:
                model.on_phase = enter
            try:
                if not phase.startswith("llm"):
                    whisper.transcribe(batch, TranscribeOptions(max_new_tokens=4))
                if not phase.startswith("asr"):
                    strategy.llm.answer(batch, questions, max_new_tokens=4)
            except Exception as error:
                limit.lift()
                found |= {"failed": repr(error), "oom": out_of_memory(error) is not None}
    Path(path).write_text(json.dumps(said))


@pytest.fixture(scope="module")
def said(case_server: CaseServer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("starved")
    ended = case_server.run(starve, str(folder / "said.json"), log=folder / "log")
    assert ended.ok, (folder / "log").read_text()
    return json.loads((folder / "said.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_an_allocation_failure_in_a_phase(phase: str, said: Any) -> None:
    assert said[phase]["oom"], said[phase]
    assert said[phase]["phase"] == phase


def test_the_same_process_serves_the_same_batch_afterwards(said: Any) -> None:
    assert not said["afterwards"]["oom"], said["afterwards"]
    assert said["afterwards"]["phase"].startswith("llm")
