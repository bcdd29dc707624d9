"""Columns of a case are read at the moments that they are named for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hybridlab import catalog
from hybridlab.devices import CpuDevice, MemoryOwners, Reading
from hybridlab.devices.base import SLACK
from hybridlab.errors import UnavailableError
from hybridlab.experiments.case import Case
from hybridlab.experiments.case_context import CaseContext, _token_columns, case_columns
from hybridlab.experiments.case_runner import failures
from hybridlab.experiments.placement import Site, place
from hybridlab.models.base import GenerationResult, PhaseSpan
from hybridlab.profiling.memory_profiler import MemoryProfiler
from hybridlab.strategies import CompletedRequest, Request
from tests.experiments.test_memory_breakdown import Kept, case


class Card(CpuDevice):
    """A card of 10,000 bytes whose readings are given."""

    is_host, capability = False, (8, 9)
    used = reserved = peak = peak_reserved = 0
    servers = 0

    def _capacity_bytes(self) -> int:
        return 10_000

    def title(self) -> str:
        return "NVIDIA L4"

    def used_bytes(self) -> int:
        return self.used

    def peak_bytes(self) -> int:
        return self.peak

    def reserved_bytes(self) -> int:
        return self.reserved

    def peak_reserved_bytes(self) -> int:
        return self.peak_reserved

    def reset_peak(self) -> None:
        self.peak, self.peak_reserved = self.used, self.reserved

    def memory_owners(self) -> MemoryOwners:
        return MemoryOwners({}, {SLACK: self.reserved - self.used, "context": 300 * self.servers})

    def take(self, n_bytes: int, *, held: int, then: int) -> None:
        """Use so many bytes for a moment, the allocator holding some more, and go on with fewer."""
        self.peak, self.peak_reserved = max(self.peak, n_bytes), max(self.peak_reserved, held)
        self.used, self.reserved = then, held


def context(card: CpuDevice) -> CaseContext:
    return CaseContext(case(), card, MemoryProfiler(card), Kept(), 0.0)


def test_the_margin_is_what_was_free_when_least_was() -> None:
    card = Card()
    seen = context(card)
    with seen.meter as meter:
        with meter.region("load"):
            card.servers = 2
            card.take(4_000, held=4_500, then=3_000)
        card.reserved = 3_100
        with meter.region("request"):
            card.take(5_000, held=5_200, then=3_000)
        with meter.region("request"):
            card.take(3_500, held=5_200, then=3_000)
        card.servers, card.used, card.reserved = 0, 0, 0  # servers are stopped when all is said
        columns = case_columns(seen)
    assert columns["request_peak_bytes"] == 5_000
    assert columns["external_bytes"] == 600
    assert columns["margin_bytes"] == 10_000 - 5_200 - 600
    (request, _) = (region for region in meter.regions if region.name == "request")
    assert request.peak_account.external[SLACK] == 200  # and not the 2,200 of its end
    free = request.peak_account.free_bytes(capacity_bytes=10_000, used_bytes=5_000)
    assert free == columns["margin_bytes"]


def test_each_phase_has_the_slack_of_its_own_peak() -> None:
    card = Card()
    seen = context(card)

    class Model:
        on_phase: Any = None

    model = Model()
    with seen.meter as meter, meter.region("request") as region, meter.phases(region, [model]):
        model.on_phase("asr encode")
        card.take(2_000, held=2_100, then=500)
        model.on_phase("asr decode")
        card.take(1_500, held=2_100, then=500)
        model.on_phase("")
    slack = {name: phase.peak_account.external[SLACK] for name, phase in region.phases.items()}
    assert (slack["asr encode"], slack["asr decode"]) == (100, 600)
    assert (region.peak_bytes, region.reserved_bytes) == (2_000, 2_100)


def test_what_was_measured_of_a_pair_that_failed_is_forgotten() -> None:
    card = Card()
    seen = context(card)
    with seen.meter as meter:
        with meter.region("load"):
            card.take(9_900, held=9_900, then=0)
        meter.forget()
        with meter.region("load"):
            card.servers, card.reserved = 1, 0
            card.reset_peak()
            card.take(2_000, held=2_000, then=2_000)
        columns = case_columns(seen)
    assert columns["load_peak_bytes"] == 2_000
    assert columns["margin_bytes"] == 7_700


def test_without_a_reading_of_what_is_outside_there_is_no_margin() -> None:
    class Blind(Card):
        def memory_owners(self) -> MemoryOwners:
            return MemoryOwners({}, {SLACK: 0})

        def external_bytes(self) -> Reading:
            return Reading(None, "no NVML")

    seen = context(Blind())
    with seen.meter as meter:
        with meter.region("load"):
            pass
        columns = case_columns(seen)
    assert columns["margin_bytes"] is None
    assert columns["external_bytes"] is None
    assert columns["external_reason"] == "no NVML"


def standing_for(card: str) -> Case:
    own = case()
    return replace(own, llm=replace(own.llm, card=card))


def test_a_case_that_stands_for_a_card_has_that_card_s_word() -> None:
    newer = Card()
    assert standing_for("t4").card_on(newer) == catalog.card("t4")
    assert standing_for("t4").identity()["card"] == "t4"


@pytest.mark.parametrize("variant", ["single-container", "separate-containers"])
def test_servers_on_a_newer_card_cannot_stand_for_a_t4(variant: str) -> None:
    from contextlib import ExitStack

    own = standing_for("t4")
    with ExitStack() as stack, pytest.raises(UnavailableError, match="not those of a t4"):
        place(catalog.variant("parallel", variant), own.asr, own.llm, Site(Card(), stack))


def test_cases_that_failed_are_named_with_their_reasons() -> None:
    rows = [{"case_id": name, "status": "crashed", "reason": f"{name} fell"} for name in "abcde"]
    assert failures([*rows[:1], {"case_id": "x", "status": "ok", "reason": ""}]) == (
        "1 case crashed or timed out: a (a fell)"
    )
    assert failures(rows).endswith("a (a fell); b (b fell); c (c fell); and 2 more")
    assert failures([]) == ""


def spans_of(*phases: tuple[str, str, float, float]) -> tuple[PhaseSpan, ...]:
    return tuple(PhaseSpan(role, phase, start, end) for role, phase, start, end in phases)


ANSWERED = (("llm", "prepare", 2.0, 2.1), ("llm", "encode", 2.1, 2.5), ("llm", "prefill", 2.5, 3.0))
PREFIXED = (*ANSWERED, ("llm", "decode", 3.0, 3.4), ("llm", "prepare", 3.4, 3.5))


@pytest.mark.parametrize(
    ("spans", "longest", "found"),
    [
        ((*ANSWERED, ("llm", "decode", 3.0, 4.0)), 0, (2.0, 0.25, 4.0)),
        ((*ANSWERED, ("llm", "decode", 3.0, 4.0)), 9, (2.0, 0.125, 8.0)),
        ((*PREFIXED, ("llm", "decode", 3.5, 4.5)), 0, (None, None, None)),
        ((("llm", "http", 1.0, 1.1), ("llm", "work", 1.1, 4.0)), 0, (None, None, None)),
    ],
)
def test_the_first_token_and_the_pace_are_those_of_the_answer(
    spans: Any, longest: int, found: tuple[float | None, ...]
) -> None:
    """Five tokens: one at the end of prefill, four in a second of decoding; in a batch (`longest`)
    that went on for nine tokens, those of the other answers among them."""
    calls = spans_of(("asr", "decode", 1.2, 1.9), *spans)
    served = CompletedRequest(
        request=Request(id="r", samples=np.zeros(1, np.float32), question="?"),
        transcript=GenerationResult("one", (1,)),
        answer=GenerationResult("a b c d", (1, 2, 3, 4, 5)),
        start_s=1.0,
        end_s=4.0,
        spans=() if longest else calls,
        batch_spans=calls if longest else (),
        longest_answer=longest,
    )
    columns = _token_columns(context(Card()), served)
    assert columns["output_tokens"] == 5
    told = tuple(columns.get(name) for name in ("ttft_s", "itl_s", "tokens_per_s"))
    assert told == pytest.approx(found) if found[0] else told == found
