"""A model, a backend, a strategy, a variant and a device more are one call in one file each: this
one. Each runs a case, has a line of the plan and a row of the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import pytest

from hybridlab import catalog, planner
from hybridlab.audio import Samples
from hybridlab.catalog.backends import Backend
from hybridlab.catalog.device_names import DEVICES, DeviceKind
from hybridlab.catalog.models import LlamaText, VoxtralModel, whisper_of
from hybridlab.catalog.registry import Registry
from hybridlab.catalog.strategies import StrategyFacts, Variant, register
from hybridlab.config.params import ParallelParams, SequentialParams
from hybridlab.devices import CpuDevice
from hybridlab.errors import ParameterError, WeightsError
from hybridlab.experiments.plans import co_residency
from hybridlab.experiments.session import Session
from hybridlab.models.base import GenerationResult, ModelSpec, SpeechRecognizer
from hybridlab.models.source import check_source
from hybridlab.reporting import tables
from hybridlab.reporting.palette import strategy_look
from hybridlab.server.settings import Settings
from hybridlab.strategies.base import Request, Strategy, Texts
from hybridlab.units import GIB
from hybridlab.widgets.measured_points import points


class Echo(SpeechRecognizer):
    """A backend that hears one word, and notes from how deep it was called."""

    loaded = False
    frames: ClassVar[list[list[str]]] = []

    def load(self) -> None:
        self.loaded = True

    def unload(self) -> None:
        self.loaded = False

    def module(self) -> None:
        return None

    def transcribe(self, batch: Sequence[Samples], options: Any = None) -> list[GenerationResult]:
        self.frames.append(frames_below("execute"))
        return [GenerationResult("echo", (1,)) for _ in batch]


def frames_below(entry: str) -> list[str]:
    """The functions between this model's call and the case's entry, which is the last one."""
    names: list[str] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and entry not in names:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


class Relay(Strategy):
    """The answer before the transcript."""

    name = "relay"

    def _serve(self, request: Request) -> Texts:
        answer = self._answer(request)
        return self._transcribe(request), answer


class Toaster(CpuDevice):
    """A device of two GiB that computes as the host does."""

    name = "toaster"
    torch_name = "cpu"

    def title(self) -> str:
        return "a toaster"

    def _capacity_bytes(self) -> int:
        return 2 * GIB


def open_toaster(_: str) -> Toaster:
    return Toaster()


ECHO = Backend(
    name="echo",
    recognizer=f"{__name__}:Echo",
    module=__name__,
    dtypes=("float32",),
    default_dtype="float32",
)
NANO = whisper_of("nano", 64, 1, 1, 2)
PICO = VoxtralModel(
    name="pico",
    encoder=catalog.whisper("pocket-s").encoder,
    text=LlamaText(hidden=64, layers=1, heads=2, kv_heads=1, head_dim=32, ffn=128, vocab_size=4096),
)
TOASTER = DeviceKind(
    name="toaster", pattern="toaster", spelling="toaster", open=f"{__name__}:open_toaster"
)


@contextmanager
def registered(registry: Registry[Any], *members: Any) -> Iterator[None]:
    for member in members:
        registry.register(member)
    try:
        yield
    finally:
        for member in members:
            del registry[member.name]


@pytest.fixture
def relay() -> Iterator[StrategyFacts]:
    yield register(
        StrategyFacts(
            name="relay",
            advice="Keep both loaded and let Voxtral go first",
            implementation=f"{__name__}:Relay",
            bound="the sum of both models",
            colour="#123456",
            marker="x",
        ),
        [Variant(name="answer-first", ledger="sequential")],
    )
    del catalog.STRATEGIES["relay"]


def measured(
    tmp_path: Path, strategy: str = "sequential", variant: str = "plain", **values: Any
) -> tuple[Session, dict[str, Any]]:
    """A session whose parameters these are, and the row of its one case."""
    small = {
        "output_dir": str(tmp_path / "run"),
        "trials": 1,
        "max_new_tokens": 4,
        "max_other_cpu_share": 1.0,
        "headless": True,
        "inline": True,
        "device": "cpu",
    }
    session = Session.open(ParallelParams.from_mapping({**small, **values}))
    session.preflight()
    case = session.case("strategy_comparison", strategy=strategy, variant=variant)
    row = session.runner.run(case)
    assert row["status"] == "ok", row["reason"]
    (line,) = tables.memory_table(session.table("cases")).to_dict("records")
    assert f"{strategy}/{variant}" in line["case"] and line["status"] == "ok"
    assert co_residency.planned(session, case).total_bytes > 0
    return session, row


def test_a_model_of_either_family(tmp_path: Path) -> None:
    with registered(catalog.WHISPERS, NANO), registered(catalog.VOXTRALS, PICO):
        _, row = measured(
            tmp_path,
            llm_model="pico",
            llm_weights="random",
            asr_model="nano",
            asr_backend="transformers",
            asr_weights="random",
        )
        assert (row["llm_model"], row["asr_model"]) == ("pico", "nano")
        assert row["asr_weights_bytes"] == 4 * NANO.parameters
        buffers = row["llm_weights_bytes"] - 4 * PICO.parameters  # of the rotary embedding
        assert 0 <= buffers < 1024
        plans = planner.plan_table(catalog.card("t4"), voxtral=PICO, sizes=("nano",))
        assert {(plan.llm_model, plan.asr_model) for plan in plans} == {("pico", "nano")}
        Settings.from_mapping({"asr_model": "nano", "asr_weights": "random"})
    with pytest.raises(ParameterError, match="parameter asr_model = 'nano'"):
        SequentialParams.from_mapping({"asr_model": "nano"})


def test_a_backend_and_how_deep_a_request_goes(tmp_path: Path) -> None:
    """Nine frames at most from the entry of a case's process to the model."""
    with registered(catalog.BACKENDS, ECHO):
        session, row = measured(tmp_path, asr_backend="echo", warmup=0)
        assert (row["asr_backend"], row["asr_dtype"]) == ("echo", "float32")
        assert set(session.table("trials")["transcript"]) == {"echo"}
        planned = planner.plan_table(catalog.card("t4"), sizes=("base",))
        assert ("echo", "float32") in {(plan.asr_backend, plan.asr_dtype) for plan in planned}
        Settings.from_mapping({"asr_backend": "echo"})
    frames = Echo.frames.pop()
    assert frames[-1] == "execute"
    assert len(frames) <= 9, frames


def test_a_strategy(tmp_path: Path, relay: StrategyFacts) -> None:
    session, row = measured(tmp_path, "relay", "answer-first")
    assert (row["strategy"], row["variant"]) == ("relay", "answer-first")
    spans = session.table("spans").query("phase == 'decode' and request_id.notna()")
    assert list(spans.sort_values("start_s")["role"])[:2] == ["llm", "asr"]
    assert strategy_look("relay") == ("#123456", "x")
    (point,) = points(session.table("cases"), session.table("trials"), run="", card="")
    assert point.way == "sequential"
    served = Settings.from_mapping({"strategy": "relay", "variant": "answer-first"})
    assert not served.served_variant.concurrent


def test_a_variant_of_a_strategy(tmp_path: Path) -> None:
    variant = Variant(name="twins", concurrent=True, ledger="parallel, one process")
    with registered(catalog.strategy("parallel").variants, variant):
        session, row = measured(tmp_path, "parallel", "twins", parallel_variants=["twins"])
        assert row["variant"] == "twins"
        ledgers = planner.memory_by_strategy(
            catalog.card("t4"),
            catalog.whisper("base"),
            catalog.voxtral("mini-3b"),
            backend="transformers",
            dtype="float16",
        )
        assert variant.predicted("asr") in ledgers
        (point,) = points(session.table("cases"), session.table("trials"), run="", card="")
        assert point.way == variant.ledger


@pytest.mark.parametrize("backend", ["openai-whisper", "faster-whisper"])
def test_a_model_that_a_library_does_not_publish(backend: str) -> None:
    spec = ModelSpec(model="nano", backend=backend, weights="hub", dtype="float32")
    with (
        registered(catalog.WHISPERS, NANO),
        pytest.raises(WeightsError, match=f"{backend} publishes no nano; choose asr_backend"),
    ):
        check_source(spec)


def test_a_device(tmp_path: Path) -> None:
    with registered(DEVICES, TOASTER):
        session, row = measured(tmp_path, device="toaster")
        assert session.device.name == "toaster"
        assert row["capacity_bytes"] == 2 * GIB
        assert set(session.table("cases")["device"]) == {"toaster"}
    with pytest.raises(ParameterError, match="device 'toaster'"):
        SequentialParams.from_mapping({"device": "toaster"})


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="asr_backend 'transformers' is registered already"):
        catalog.BACKENDS.register(catalog.backend("transformers"))
