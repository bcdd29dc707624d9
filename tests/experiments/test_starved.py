"""No memory left in each phase in turn: a real failure of the allocator, said with its phase, after
which the same process serves the same request."""

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
from hybridlab.models import make_asr, make_llm
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


def starve(phase: str, path: str) -> None:
    """This phase's model serves a batch with no memory from there on, then serves it again."""
    device = CpuDevice()
    device.count_exactly()
    whisper = make_asr(replace(WHISPER, backend="transformers"), device)
    strategy = make_strategy("sequential", "plain", asr=whisper, llm=make_llm(VOXTRAL, device))
    strategy.open()
    clip = min(load_clips(""), key=lambda clip: clip.audio_s)
    batch = [read_audio(Path(clip.path))] * BATCH
    said: dict[str, Any] = {"phase": None, "oom": False}

    def serve() -> None:
        if phase.startswith("asr"):
            strategy.asr.transcribe(batch, max_new_tokens=8)
        else:
            strategy.llm.answer(batch, ["What is the first digit?"] * BATCH, max_new_tokens=8)

    with make_memory_limit(device) as limit:

        def enter(name: str) -> None:
            said["phase"] = name or said["phase"]
            if name == phase:
                device.release()
                limit.leave(ROOM_BYTES)

        for model in strategy.models:
            model.on_phase = enter
        try:
            serve()
        except Exception as error:
            limit.lift()
            said |= {"failed": repr(error), "oom": out_of_memory(error) is not None}
    for model in strategy.models:
        model.on_phase = None
    serve()
    Path(path).write_text(json.dumps({**said, "served_again": True}))


@pytest.mark.parametrize("phase", PHASES)
def test_an_allocation_failure_in_a_phase(
    phase: str, tmp_path: Path, case_server: CaseServer
) -> None:
    path = tmp_path / "said.json"
    log = tmp_path / "log"
    ended = case_server.run(starve, phase, str(path), log=log)
    assert ended.ok, log.read_text()
    said = json.loads(path.read_text())
    assert said["oom"], said
    assert said["phase"] == phase
    assert said["served_again"]
