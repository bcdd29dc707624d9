"""Swapping with pocket models: bits, texts, who holds what, faults."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridlab import catalog
from hybridlab.audio import Samples, load_clips, read_audio
from hybridlab.catalog.registry import load
from hybridlab.devices import CpuDevice, Device, procfs
from hybridlab.errors import UnavailableError
from hybridlab.models import ModelSpec, TranscribeOptions, make_asr, make_llm
from hybridlab.models.pocket import pocket_dir
from hybridlab.models.source import weight_files
from hybridlab.strategies import CompletedRequest, Request, make_strategy
from hybridlab.strategies.offload import per_tensor, weight_buffer
from hybridlab.strategies.offload.single_buffer import SingleBuffer
from hybridlab.strategies.offload.weight_buffer import weights_digest
from hybridlab.strategies.swapping import Swapping
from tests.sessions import VOXTRAL
from tests.strategies.test_weight_buffer import FakeCudart, pinned_now

COPYING = tuple(own.name for own in catalog.strategy("swapping") if own.host_copy)
BACKENDS = ("openai-whisper", "transformers")


def spec(model: str, backend: str = "transformers", **changes: Any) -> ModelSpec:
    return replace(VOXTRAL, model=model, backend=backend, **changes)


def strategy(
    variant: str,
    *,
    backend: str = "transformers",
    swap: str = "asr",
    device: Device | None = None,
) -> Swapping:
    device = device or CpuDevice()
    made = make_strategy(
        "swapping",
        variant,
        asr=make_asr(spec("pocket-m", backend), device),
        llm=make_llm(spec("pocket"), device),
        options={"swap": swap},
    )
    assert isinstance(made, Swapping)
    return made


@pytest.fixture(scope="module")
def clip() -> Samples:
    return read_audio(Path(load_clips()[0].path))


def ask(made: Swapping, clip: Samples) -> CompletedRequest:
    return made.serve(Request(id="r", samples=clip, question="last", max_new_tokens=16))


@pytest.fixture(scope="module")
def alone(clip: Samples) -> dict[str, tuple[int, ...]]:
    """What each model says by itself."""
    said = {}
    for backend in BACKENDS:
        whisper = make_asr(spec("pocket-m", backend), CpuDevice())
        whisper.load()
        said[backend] = whisper.transcribe([clip], TranscribeOptions(max_new_tokens=16))[0].tokens
    voxtral = make_llm(spec("pocket"), CpuDevice())
    voxtral.load()
    said["answer"] = voxtral.answer([clip], ["last"], max_new_tokens=16)[0].tokens
    return said


def assert_said(
    served: CompletedRequest, alone: dict[str, tuple[int, ...]], backend: str = "transformers"
) -> None:
    """What each model says by itself."""
    assert served.transcript.tokens == alone[backend]
    assert served.answer.tokens == alone["answer"]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert not [t.name for t in threading.enumerate() if t.name.startswith("single-buffer")]


@pytest.mark.parametrize(
    ("variant", "swap", "backend"),
    [
        ("reload-cached", "asr", "openai-whisper"),
        ("reload-cached", "both", "transformers"),
        ("reload-from-disk", "asr", "transformers"),
        ("reload-from-disk", "both", "openai-whisper"),
        # weights that move are the backend's own tensors, with its own aliases
        *itertools.product(
            ["single-buffer", "single-buffer-overlapped"], ["asr", "both"], BACKENDS
        ),
    ],
)
def test_texts_are_those_of_each_model_alone(
    variant: str, swap: str, backend: str, clip: Samples, alone: dict[str, tuple[int, ...]]
) -> None:
    made = strategy(variant, backend=backend, swap=swap)
    made.open()
    for _ in range(2):
        assert_said(ask(made, clip), alone, backend)
    made.close()
    assert not any(model.loaded for model in made.models)


@pytest.mark.slow
def test_a_thousand_swaps_leave_every_bit_and_the_text(
    clip: Samples, alone: dict[str, tuple[int, ...]]
) -> None:
    """By the backend whose weights have aliases."""
    backend = "openai-whisper"
    made = strategy("single-buffer", backend=backend, swap="both")
    expected = {}
    for model in strategy("single-buffer", backend=backend).models:
        model.load()
        expected[model.name] = weights_digest(model.module())  # type: ignore[arg-type]
    made.open()
    for number in range(1, 1001):
        for model in made.models:
            made.offloader.onload(model)
            if number % 250 == 0:
                assert weights_digest(model.module()) == expected[model.name]  # type: ignore[arg-type]
            made.offloader.offload(model)
    for model in made.models:
        model.drain_spans()
    assert_said(ask(made, clip), alone, backend)
    made.close()


def test_swapping_both_holds_one_model_in_one_fixed_block(clip: Samples) -> None:
    made = strategy("single-buffer", swap="both")
    made.open()
    mover = made.offloader
    assert isinstance(mover, SingleBuffer)
    assert mover.shared is not None
    fixed = mover.shared.data_ptr()
    assert mover.shared.nbytes == max(a.n_bytes for a in mover.buffers.values())
    assert made.buffer_bytes()["swap block"] == mover.shared.nbytes
    mover.onload(made.asr)
    assert [model.weights_bytes() for model in made.models] == [0, mover.shared.nbytes]
    assert "swap block" not in made.buffer_bytes()
    with pytest.raises(RuntimeError, match="still holds the other"):
        mover.onload(made.llm)
    mover.offload(made.asr)
    served = ask(made, clip)
    assert mover.shared.data_ptr() == fixed
    assert not [span for span in served.spans if span.phase == "allocate"]
    made.close()
    assert mover.shared is None
    assert not mover.buffer_bytes()


def test_swapping_whisper_gives_its_memory_back_while_voxtral_works(clip: Samples) -> None:
    made = strategy("single-buffer")
    made.open()
    made.asr.drain_spans()
    seen = []
    made.llm.on_phase = lambda phase: seen.append(made.asr.weights_bytes())
    served = ask(made, clip)
    assert set(seen) == {0}
    size = made.host_copy_bytes()
    assert [(s.phase, s.n_bytes) for s in served.spans if s.n_bytes is not None] == [
        ("allocate", size),
        ("copy-in", size),
        ("release", size),
    ]
    assert made.buffer_bytes() == {"asr host copy": size}
    assert made.link_bytes_per_s is not None
    made.close()
    assert made.host_copy_bytes() == 0


def test_the_overlapped_copy_runs_while_the_other_model_works(
    clip: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_in = weight_buffer.WeightBuffer.copy_in

    def slowly(self: weight_buffer.WeightBuffer, block: torch.Tensor) -> None:
        """So that the other model has begun before it ends, however busy the machine is."""
        time.sleep(0.2)
        copy_in(self, block)

    monkeypatch.setattr(weight_buffer.WeightBuffer, "copy_in", slowly)
    made = strategy("single-buffer-overlapped")
    made.open()
    ask(made, clip)
    served = ask(made, clip)
    (copy,) = [span for span in served.spans if span.phase == "copy-in"]
    work = [span for span in served.spans if span.role == "llm"]
    assert copy.start_s <= max(span.end_s for span in work)
    assert work[0].start_s <= copy.end_s
    assert made.asr.weights_bytes() == made.host_copy_bytes()  # it waits in its place
    made.close()


def test_a_fault_while_it_copies_aside_comes_out_and_the_next_request_is_served(
    clip: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = strategy("single-buffer-overlapped")
    made.open()
    expected = ask(made, clip).transcript

    def interrupted(self: weight_buffer.WeightBuffer, block: torch.Tensor) -> None:
        block[: self.n_bytes // 2].copy_(self.host[: self.n_bytes // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(weight_buffer.WeightBuffer, "copy_in", interrupted)
        ask(made, clip)
    assert made.asr.weights_bytes() == 0
    assert ask(made, clip).transcript == expected
    made.close()


def test_a_failed_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made = strategy("single-buffer", swap="both")

    def fails(*_: object) -> float:
        raise UnavailableError("no link")

    monkeypatch.setattr(weight_buffer, "link_bytes_per_s", fails)
    with pytest.raises(UnavailableError, match="no link"):
        made.open()
    assert not any(model.loaded for model in made.models)
    assert made.host_copy_bytes() == 0


# ---------------------------------------------------------------------- a device beyond the host


class PretendGpu(CpuDevice):
    """Host memory that says it is a GPU's: the logic of pins and copies, without the driver."""

    is_host = False


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    """The driver's part, counted or left out."""
    fake = FakeCudart()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: fake)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    return fake


@pytest.mark.parametrize("swap", ["asr", "both"])
@pytest.mark.parametrize("variant", COPYING)
def test_beyond_the_host_texts_are_the_same_and_nothing_stays_pinned(
    variant: str,
    swap: str,
    clip: Samples,
    alone: dict[str, tuple[int, ...]],
    cudart: FakeCudart,
) -> None:
    made = strategy(variant, swap=swap, device=PretendGpu())
    made.open()
    assert made.link_bytes_per_s is not None
    pinned = 0 if variant in ("module-to-cpu", "pinned") else 1 if swap == "asr" else 2
    assert len(cudart.registered) == pinned
    for _ in range(2):
        served = ask(made, clip)
        assert_said(served, alone)
    phases = {span.phase for span in served.spans}
    assert ("copy-out" in phases) == (variant == "module-to-cpu")
    assert {"copy-in", "release"} <= phases
    assert not {"load", "host", "pin"} & phases
    assert made.host_copy_bytes() > 0
    made.close()
    assert not cudart.registered


@pytest.mark.parametrize(
    ("variant", "why"), [("single-buffer", "CUDA error 2"), ("pinned", "out of memory")]
)
def test_a_refused_pin_is_a_lack_and_leaves_nothing_loaded(
    variant: str, why: str, cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be")

    cudart.code = 2
    monkeypatch.setattr(torch.Tensor, "pin_memory", refused)
    made = strategy(variant, device=PretendGpu())
    with pytest.raises(UnavailableError, match=rf"did not pin.*{why}\);.*reload-cached"):
        made.open()
    assert not any(model.loaded for model in made.models)
    assert made.host_copy_bytes() == 0


@pytest.mark.usefixtures("cudart")
def test_pinned_memory_counts_as_torch_rounds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        per_tensor, "check_host_memory", lambda n_bytes, device: asked.append(n_bytes)
    )
    made = strategy("pinned", device=PretendGpu())
    made.open()
    assert [made.host_copy_bytes()] == asked
    made.offloader.onload(made.asr)
    assert made.host_copy_bytes() > 1.1 * (made.asr.weights_bytes() or 0)
    made.close()
    assert made.host_copy_bytes() == 0


@pytest.mark.usefixtures("cudart")
@pytest.mark.parametrize("variant", COPYING)
def test_a_copy_that_the_driver_lost_is_a_fault_and_no_wrong_text(
    variant: str, clip: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = strategy(variant, device=PretendGpu())
    made.open()
    module = made.asr.module()
    assert module is not None
    back = made.offloader.verify

    def lost(model: Any) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()  # what the device's memory held before
        back(model)

    monkeypatch.setattr(made.offloader, "verify", lost)
    with pytest.raises(RuntimeError, match=r"asr's weights did not arrive on .*reload-cached"):
        ask(made, clip)
    made.close()


# -------------------------------------------------------------------------------- on a real device


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["module-to-cpu", "pinned", "single-buffer"])
def test_weights_that_are_away_leave_their_room_to_other_processes(
    variant: str, clip: Samples
) -> None:
    from hybridlab.devices.cuda import CudaDevice

    device = CudaDevice()
    device.release_caches()
    before = torch.cuda.memory_reserved()
    pinned = pinned_now()
    made = strategy(variant, device=device)
    made.open()
    resident = made.llm.weights_bytes() or 0
    opened = torch.cuda.memory_reserved()
    device.release()
    assert torch.cuda.memory_reserved() == opened  # nothing was kept for later
    ask(made, clip)
    served = ask(made, clip)
    assert served.transcript.tokens and served.answer.tokens
    if variant == "pinned":
        now = pinned_now()
        assert made.host_copy_bytes() == now - pinned
    made.offloader.onload(made.asr)
    device.release()
    there = torch.cuda.memory_reserved()
    made.offloader.offload(made.asr)
    assert there - torch.cuda.memory_reserved() >= made.host_copy_bytes() // 2
    assert resident <= torch.cuda.memory_reserved() - before
    made.close()
    assert torch.cuda.memory_reserved() == before
    assert pinned_now() == pinned


# -------------------------------------------------------------------------- what a machine lacks


@pytest.mark.parametrize("variant", ["module-to-cpu", "pinned"])
def test_a_device_that_is_the_host_has_nothing_to_move(variant: str) -> None:
    with pytest.raises(
        UnavailableError, match=f"{variant}.*the device is the host.*use single-buffer"
    ):
        strategy(variant)


def test_weights_that_torch_does_not_hold_cannot_be_moved(clip: Samples) -> None:
    pytest.importorskip("faster_whisper")
    made = strategy("single-buffer", backend="faster-whisper")
    with pytest.raises(UnavailableError, match=r"faster-whisper holds.*use reload-cached"):
        made.open()
    assert not made.asr.loaded


def test_random_weights_are_nowhere_on_the_disk() -> None:
    device = CpuDevice()
    made = make_strategy(
        "swapping",
        "reload-from-disk",
        asr=make_asr(spec("tiny", weights="random"), device),
        llm=make_llm(spec("pocket"), device),
    )
    with pytest.raises(UnavailableError, match=r"computed, not read.*reload-cached"):
        made.open()
    assert not made.llm.loaded


def test_a_cold_reload_tells_what_came_from_the_disk(clip: Samples) -> None:
    made = strategy("reload-from-disk")
    made.open()
    spans = ask(made, clip).spans
    made.close()
    (disk,) = [span for span in spans if span.phase == "disk"]
    (file,) = weight_files(spec("pocket-m"))
    assert file.parent == pocket_dir("pocket-m")
    assert disk.n_bytes is not None
    # a file system without a page cache to drop reads nothing, and the row says so
    assert 0 <= disk.n_bytes <= 1.5 * file.stat().st_size
    assert [s.phase for s in spans if s.role == "asr"][:2] == ["disk", "load"]


def test_dropping_the_page_cache_makes_the_disk_work(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(4 << 20))
    procfs.drop_page_cache(file)
    before = procfs.read_from_disk_bytes()
    file.read_bytes()
    cold = procfs.read_from_disk_bytes() - before
    file.read_bytes()
    assert procfs.read_from_disk_bytes() - before == cold  # the second time it comes from memory


def test_every_way_says_what_bounds_it() -> None:
    for variant in catalog.strategy("swapping"):
        assert "Bound by" in (load(variant.offloader).__doc__ or ""), variant
