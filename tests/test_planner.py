from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab import catalog, planner
from hybridlab.errors import ParameterError
from hybridlab.units import MIB

T4 = catalog.card("t4")
MINI = catalog.voxtral("mini-3b")


def plan(size: str, backend: str, dtype: str) -> planner.PairPlan:
    return planner.plan_pair(T4, catalog.whisper(size), MINI, backend=backend, dtype=dtype)


def test_openai_large_v3_does_not_fit_beside_voxtral_by_default() -> None:
    row = plan("large-v3", "openai-whisper", "float32")
    assert not row.fits
    assert row.margin_bytes < 0


def test_large_v3_in_float16_fits() -> None:
    assert plan("large-v3", "transformers", "float16").fits


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


def test_voxtral_weights_in_16_bit() -> None:
    assert planner.voxtral_weights_bytes(MINI, dtype="float16") == 9_352_542_208


def test_kv_cache_of_30_minutes() -> None:
    tokens = 60 * catalog.VOXTRAL_TOKENS_PER_WINDOW
    n_bytes = planner.voxtral_kv_bytes(MINI, tokens=tokens, width=2)
    assert n_bytes / 2**30 == pytest.approx(2.58, abs=0.01)


def test_math_kernel_scores_on_a_t4_only() -> None:
    request = planner.Request()
    one_matrix = planner.attention_score_bytes(MINI, 383, request, T4) / 2
    assert one_matrix / MIB == pytest.approx(18, abs=0.1)
    assert planner.attention_score_bytes(MINI, 383, request, catalog.card("l4")) == 0


@given(
    size=st.sampled_from(catalog.WHISPER_SIZES),
    card=st.sampled_from(sorted(catalog.CARDS)),
    audio_s=st.floats(1, 2400),
    beams=st.integers(1, 8),
)
def test_plans_are_consistent(size: str, card: str, audio_s: float, beams: int) -> None:
    request = planner.Request(audio_s=audio_s, beams=beams)
    for row in planner.plan_table(catalog.card(card), sizes=(size,), request=request):
        assert row.weights_bytes < row.steady_bytes <= row.load_peak_bytes
        assert row.steady_bytes <= row.request_peak_bytes
        assert row.total_bytes == max(row.load_peak_bytes, row.request_peak_bytes)
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


def test_longest_audio_fills_the_spare_bytes() -> None:
    spare = 2 * 2**30
    seconds = planner.longest_audio_s(T4, MINI, spare_bytes=spare)
    assert seconds % catalog.WINDOW_S == 0
    longer = planner.Request(audio_s=seconds + catalog.WINDOW_S)
    assert planner.voxtral_request_bytes(MINI, longer, dtype="float16", card=T4) > spare


def test_every_combination_once() -> None:
    rows = planner.plan_table(T4)
    keys = [(r.whisper, r.backend, r.dtype) for r in rows]
    assert len(keys) == len(set(keys))
    assert {r.whisper for r in rows} == set(catalog.WHISPER_SIZES)
    assert ("large-v3", "openai-whisper", "float32") in keys
    assert not any(dtype == "bfloat16" for *_, dtype in keys)


def test_impossible_dtype_is_refused() -> None:
    with pytest.raises(ParameterError, match="openai-whisper cannot keep 'int8'"):
        plan("tiny", "openai-whisper", "int8")


def test_json_of_the_command_and_no_torch() -> None:
    code = (
        "import sys; from hybridlab.cli import app; "
        "app(['plan', '--card', 't4', '--json'], standalone_mode=False); "
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert {
        "whisper",
        "backend",
        "dtype",
        "weights_bytes",
        "load_peak_bytes",
        "steady_bytes",
        "request_peak_bytes",
        "total_bytes",
        "capacity_bytes",
        "utilization",
        "margin_bytes",
        "fits",
    } <= set(rows[0])
