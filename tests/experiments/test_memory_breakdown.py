"""The ledger closes whatever the machine reads: an invariant over random cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.devices import CpuDevice, MemoryOwners
from hybridlab.experiments.case import Case, RequestSpec
from hybridlab.experiments.case_context import CaseContext
from hybridlab.experiments.memory_breakdown import write_ledgers
from hybridlab.profiling.memory_profiler import Ended, MemoryProfiler, Phase, Region, Rest
from hybridlab.results.writer import TableWriter
from hybridlab.strategies import Strategy
from tests.sessions import VOXTRAL, WHISPER

N_BYTES = st.integers(0, 2**36)
PHASES = ("asr encode", "llm prefill", "llm decode", "")


class Machine(CpuDevice):
    """A device whose readings are given."""

    def __init__(self, capacity_bytes: int) -> None:
        self.given_bytes = capacity_bytes

    def _capacity_bytes(self) -> int:
        return self.given_bytes


class Kept(TableWriter):
    """Keeps the rows instead of writing them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def append(self, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
        assert table == "ledgers"
        self.rows.append(dict(row))
        return dict(row)


accounts = st.builds(
    MemoryOwners,
    in_process=st.fixed_dictionaries({"libraries": N_BYTES, "free heap": N_BYTES}),
    external=st.dictionaries(st.sampled_from(["context", "other processes"]), N_BYTES),
)
phases = st.builds(
    Phase,
    peak_bytes=N_BYTES,
    reserved_bytes=st.none() | N_BYTES,
    live_bytes=st.none() | N_BYTES,
    ended=st.builds(Ended, used_bytes=N_BYTES, live_bytes=st.none() | N_BYTES, account=accounts),
)
regions = st.builds(
    Region,
    name=st.sampled_from(["load", "request"]),
    start_bytes=N_BYTES,
    peak_bytes=N_BYTES,
    reserved_bytes=st.none() | N_BYTES,
    ended=st.builds(Ended, used_bytes=N_BYTES, account=accounts),
    phases=st.dictionaries(st.sampled_from(PHASES), phases),
)
models = st.builds(
    lambda name, device, loaded, weights, processor: SimpleNamespace(
        name=name,
        device=SimpleNamespace(name=device),
        loaded=loaded,
        weights_bytes=lambda: weights,
        processor_bytes=processor,
    ),
    name=st.sampled_from(["llm", "asr"]),
    device=st.sampled_from(["cpu", "cuda:0"]),
    loaded=st.booleans(),
    weights=st.none() | N_BYTES,
    processor=st.none() | N_BYTES,
)


def case() -> Case:
    request = RequestSpec(
        id="r",
        clip_id="c",
        path="",
        audio_s=8.0,
        reference=None,
        question="",
        expected_answer=None,
        question_type="",
    )
    return Case(
        experiment="co_residency",
        work="serve",
        strategy="sequential",
        variant="plain",
        llm=VOXTRAL,
        asr=replace(WHISPER, backend="transformers"),
        device="cpu",
        requests=(request,),
    )


@given(
    capacity_bytes=N_BYTES,
    process_baseline_bytes=N_BYTES,
    loaded_bytes=N_BYTES,
    idle_bytes=N_BYTES,
    at_base=accounts,
    at_rest=accounts,
    seen=st.lists(regions, max_size=4),
    pair=st.lists(models, max_size=2, unique_by=lambda model: model.name),
    held=st.dictionaries(st.sampled_from(["asr host copy", "swap block"]), N_BYTES),
)
def test_rows_sum_to_what_was_used_and_to_the_device(
    capacity_bytes: int,
    process_baseline_bytes: int,
    loaded_bytes: int,
    idle_bytes: int,
    at_base: MemoryOwners,
    at_rest: MemoryOwners,
    seen: list[Region],
    pair: list[Any],
    held: dict[str, int],
) -> None:
    device, writer = Machine(capacity_bytes), Kept()
    meter = MemoryProfiler(
        device, regions=seen, process_baseline_bytes=process_baseline_bytes, base_account=at_base
    )
    meter.loaded = Rest(loaded_bytes, None, at_base)
    meter.idle = Rest(idle_bytes, None, at_rest)
    strategy = cast(
        Strategy,
        SimpleNamespace(
            models=pair,
            resident=pair,
            device=device,
            buffer_bytes=lambda: held,
            bytes_by_owner=lambda models: Strategy.bytes_by_owner(strategy, models),
        ),
    )
    context = CaseContext(case(), device, meter, writer, 0.0)
    context.loaded_owners = held
    context.idle_owners = strategy.bytes_by_owner(pair)
    write_ledgers(context, strategy)
    table = pd.DataFrame(writer.rows)
    used = {"idle": idle_bytes}
    loads = [region.peak_bytes for region in seen if region.name == "load"]
    if loads:
        used["load_peak"] = max(loads)
    requests = [region for region in seen if region.name == "request"]
    if requests:
        traced = [region for region in requests if region.phases] or requests
        top = max(traced, key=lambda region: region.peak_bytes)
        used["request_peak"] = top.peak_bytes
        used |= {name: phase.peak_bytes for name, phase in top.phases.items() if name}
    assert set(table["moment"]) == set(used)
    elsewhere = {f"{model.name} weights" for model in pair if model.device.name != device.name}
    assert not elsewhere & set(table["owner"])
    for moment, own in table.groupby("moment"):
        inside = own[own["in_process"].astype(bool)]
        assert inside["bytes"].sum() == used[str(moment)]
        assert own["bytes"].sum() == capacity_bytes
        assert own["owner"].is_unique
        assert (own["owner"] == "unattributed").sum() == 1
