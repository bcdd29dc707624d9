from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab import catalog, planner
from hybridlab.errors import ParameterError
from hybridlab.planner.allocator import resident_cache_bytes
from hybridlab.planner.estimate import Estimate
from hybridlab.planner.limits import largest_fitting
from hybridlab.planner.memory_plan import context_bytes, workspace_bytes
from hybridlab.planner.weights import voxtral_host_bytes, whisper_host_bytes
from hybridlab.units import MIB

T4 = catalog.card("t4")
MINI = catalog.voxtral("mini-3b")


def plan(size: str, backend: str, dtype: str) -> planner.PairPlan:
    return planner.plan_pair(T4, catalog.whisper(size), MINI, backend=backend, dtype=dtype)


@pytest.mark.parametrize(
    ("size", "load_mib", "steady_mib"),
    [("medium", 4362, 2916), ("large-v3", 8821, 5889), ("turbo", 4618, 3086)],
)
def test_openai_load_keeps_two_copies(size: str, load_mib: float, steady_mib: float) -> None:
    model = catalog.whisper(size)
    options = {"backend": "openai-whisper", "dtype": "float32"}
    steady = planner.whisper_weights_bytes(model, **options) / MIB
    load = planner.whisper_load_peak_bytes(model, **options) / MIB
    assert steady == pytest.approx(steady_mib, rel=0.01)
    assert load == pytest.approx(load_mib, rel=0.01)


def test_bytes_of_the_released_voxtral() -> None:
    assert planner.voxtral_weights_bytes(MINI, dtype="float16") == 9_352_542_208
    tokens = 60 * catalog.VOXTRAL_TOKENS_PER_WINDOW  # 30 minutes
    n_bytes = planner.voxtral_kv_bytes(MINI, tokens=tokens, width=2)
    assert n_bytes / 2**30 == pytest.approx(2.58, abs=0.01)


@pytest.mark.parametrize(
    ("audio_s", "scores_mib"), [(30, 18), (300, 1.7 * 1024), (1800, 60 * 1024)]
)
def test_one_score_matrix_is_as_large_as_in_public_reports(
    audio_s: float, scores_mib: float
) -> None:
    length = 375 * planner.Request(audio_s=audio_s).windows + 8
    math, flash = (
        planner.attention_bytes(MINI, length, 1, 2, kernel).low for kernel in ("math", "flash")
    )
    copies = 18 * length * MINI.text.heads * MINI.text.head_dim + 4 * length**2
    assert (math - copies) * 4 / 9 / MIB == pytest.approx(scores_mib, rel=0.06)
    assert flash == 2 * length * MINI.text.heads * MINI.text.head_dim  # its output alone


@given(
    size=st.sampled_from(catalog.WHISPER_SIZES),
    card=st.sampled_from(sorted(catalog.CARDS)),
    audio_s=st.floats(1, 2400),
    beams=st.integers(1, 8),
)
def test_plans_are_consistent(size: str, card: str, audio_s: float, beams: int) -> None:
    request = planner.Request(audio_s=audio_s, beams=beams)
    for row in planner.plan_table(catalog.card(card), sizes=(size,), request=request):
        workspaces = row.expected("idle")["workspaces"]  # come with the first request
        assert row.weights_bytes < row.idle_bytes <= row.load_peak_bytes + workspaces
        assert row.idle_bytes <= row.request_peak_bytes
        assert row.total_bytes == max(row.load_peak_bytes, row.request_peak_bytes)
        assert row.total.low <= row.total_bytes <= row.total.high
        assert row.fits or row.fit != "fits"
        for moment, owners in row.ledger.items():
            assert row.moment(moment).expected == sum(size.expected for size in owners.values())
        assert row.margin_bytes == row.capacity_bytes - row.total_bytes
        assert row.fits == (row.margin_bytes >= 0)


@given(st.floats(1, 1200), st.floats(1, 1200))
def test_a_longer_audio_never_takes_less(one: float, other: float) -> None:
    short, long = sorted((one, other))
    few, many = (
        planner.voxtral_request_bytes(
            MINI, planner.Request(audio_s=seconds), dtype="float16", card=T4
        )
        for seconds in (short, long)
    )
    assert few <= many


def test_every_combination_once() -> None:
    rows = planner.plan_table(T4)
    keys = [(r.asr_model, r.asr_backend, r.asr_dtype) for r in rows]
    assert len(keys) == len(set(keys))
    assert {r.asr_model for r in rows} == set(catalog.WHISPER_SIZES)
    assert ("large-v3", "openai-whisper", "float32") in keys
    assert not any(dtype == "bfloat16" for *_, dtype in keys)


def test_impossible_dtype_is_refused() -> None:
    with pytest.raises(ParameterError, match="openai-whisper cannot keep 'int8'"):
        plan("tiny", "openai-whisper", "int8")


def test_a_plan_in_json() -> None:
    row = json.loads(json.dumps(plan("base", "transformers", "float16").as_dict()))
    pair = {"asr_model", "asr_backend", "asr_dtype"}
    moments = {"load_peak_bytes", "idle_bytes", "request_peak_bytes"}
    totals = {"total_bytes", "capacity_bytes", "utilization", "margin_bytes", "fits"}
    assert pair | moments | totals | {"weights_bytes"} <= set(row)


@given(st.integers(0, 300), st.integers(1, 300))
def test_bisection_finds_the_largest(edge: int, most: int) -> None:
    asked: list[int] = []

    def fits(count: int) -> bool:
        asked.append(count)
        return count <= edge

    assert largest_fitting(fits, most=most) == min(edge, most)
    assert max(asked) <= most
    assert len(asked) <= 20


def test_an_estimate_adds_and_orders() -> None:
    assert Estimate(1, 2, 3) + Estimate.exact(4) == Estimate(5, 6, 7)
    assert planner.largest([Estimate(1, 5, 9), Estimate(2, 3, 10)]) == Estimate(2, 5, 10)
    with pytest.raises(ValueError, match="ordered"):
        Estimate(3, 2, 4)


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ("medium", {"openai-whisper": True, "transformers": True}),
        ("large-v3", {"openai-whisper": False, "transformers": True}),
        ("base", {"openai-whisper": True, "transformers": True}),
    ],
)
def test_the_three_options_on_a_t4(size: str, fits: dict[str, bool]) -> None:
    for backend, expected in fits.items():
        row = plan(size, backend, catalog.backend(backend).default_dtype)
        assert row.fits == expected
        assert row.fit == ("fits" if expected else "does not fit")


def test_loading_whisper_first_spares_the_second_copy() -> None:
    known = {"backend": "openai-whisper", "dtype": "float32"}
    first, second = (
        planner.plan_pair(T4, catalog.whisper("large-v3"), MINI, **known, load_order=order)
        for order in ("llm-first", "asr-first")
    )
    copy = 2 * catalog.whisper("large-v3").parameters
    assert first.load_peak_bytes - second.load_peak_bytes == copy
    staged = planner.plan_pair(T4, catalog.whisper("large-v3"), MINI, **known, load_path="staged")
    assert staged.load_peak_bytes == staged.idle_bytes - workspace_bytes(T4).expected
    assert staged.host_bytes == voxtral_host_bytes(MINI, dtype="float16", path="staged")


def test_a_process_each_costs_a_context_each() -> None:
    known = {"backend": "transformers", "dtype": "float16"}
    found = planner.memory_by_strategy(T4, catalog.whisper("base"), MINI, **known)
    one, two = (found[f"parallel, {count}"].expected for count in ("one process", "two processes"))
    of_a_process = (context_bytes(T4), workspace_bytes(T4), resident_cache_bytes(T4))
    assert two - one == sum(part.expected for part in of_a_process)


def test_quantised_voxtral_keeps_all_but_the_text_models_layers() -> None:
    kept = 2 * (MINI.parameters - MINI.matrix_parameters)
    half, eight, four = (
        planner.voxtral_weights_bytes(MINI, dtype=dtype) for dtype in ("float16", "int8", "int4")
    )
    assert kept < four < eight < half
    assert eight - kept == pytest.approx(MINI.matrix_parameters, rel=0.01)
    assert four - kept == pytest.approx(0.5625 * MINI.matrix_parameters, rel=0.01)


def test_a_quantiser_replaces_the_layers_that_are_counted_as_matrices() -> None:
    """transformers' own rule of what a quantiser leaves alone, on true shapes."""
    import torch
    from transformers import VoxtralForConditionalGeneration
    from transformers.quantizers.quantizers_utils import should_convert_module

    from hybridlab.models.weights import QUANTISER_SKIPS, voxtral_config

    with torch.device("meta"):
        model = VoxtralForConditionalGeneration(voxtral_config(MINI))
    replaced = [
        module
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and should_convert_module(name, QUANTISER_SKIPS)
    ]
    assert sum(layer.weight.numel() for layer in replaced) == MINI.matrix_parameters
    rows = sum(layer.out_features for layer in replaced)
    assert planner.voxtral_weights_bytes(MINI, dtype="int8") == (
        MINI.matrix_parameters + 4 * rows + 2 * (MINI.parameters - MINI.matrix_parameters)
    )


@given(
    size=st.sampled_from(catalog.WHISPER_SIZES),
    card=st.sampled_from(sorted(catalog.CARDS)),
    audio_s=st.floats(1, 1800),
    batch=st.integers(1, 8),
)
def test_sharing_less_never_takes_more(size: str, card: str, audio_s: float, batch: int) -> None:
    kept: dict[str, str] = {"backend": "openai-whisper", "dtype": "float32"}
    pair = (catalog.card(card), catalog.whisper(size), MINI)
    request = planner.Request(audio_s=audio_s, batch=batch)
    found = planner.memory_by_strategy(*pair, **kept, request=request)
    bytes_of = {way: needed.expected for way, needed in found.items()}
    assert bytes_of["swapping both"] <= bytes_of["swapping both, fixed block"]
    assert bytes_of["swapping both"] <= bytes_of["swapping Whisper"]
    # what comes in at work finds a workspace of cuBLAS there, which a first loading does not
    at_first = bytes_of["sequential"] + workspace_bytes(catalog.card(card)).expected
    assert bytes_of["swapping Whisper"] <= at_first
    assert bytes_of["swapping both, fixed block"] <= at_first
    assert bytes_of["sequential"] <= bytes_of["parallel, one process"]
    assert bytes_of["parallel, one process"] < bytes_of["parallel, two processes"]
    assert bytes_of["swapping Whisper"] <= bytes_of["swapping Whisper, overlapped"]
    assert bytes_of["solo"] <= bytes_of["swapping Whisper"]
    plan = planner.plan_pair(*pair, **kept, request=request)
    assert found["sequential"] == plan.total
    moments = planner.ledger_by_strategy(*pair, **kept, request=request)["sequential"]
    assert moments["loading"] == plan.ledger["load_peak"]
    assert moments["at rest"] == plan.ledger["idle"]
    assert moments["one at work"] == plan.ledger["request_peak"]


def test_swapping_both_makes_room_for_what_cannot_be_resident() -> None:
    kept: dict[str, str] = {"backend": "openai-whisper", "dtype": "float32"}
    found = planner.memory_by_strategy(T4, catalog.whisper("large-v3"), MINI, **kept)
    assert found["sequential"].low > T4.usable_bytes_max
    assert found["swapping both"].high < T4.usable_bytes


def test_a_colab_host_cannot_stage_what_it_must_build_twice() -> None:
    large = catalog.whisper("large-v3")
    assert whisper_host_bytes(large, backend="transformers", dtype="float16") == 0
    pair = plan("large-v3", "openai-whisper", "float32")
    assert pair.fits_host(int(12.7e9))
    assert not pair.fits_host(int(8e9))
