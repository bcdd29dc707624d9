"""The peers' race: ratios from timings whose answer is known, and a tiny race of the real arms."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers.arms import (
    BASELINE,
    OURS,
    PEERS,
    LentWhisper,
    OffloadedWhisper,
    Pair,
    saved,
    twin,
)
from benchmarks.peers.race import Outcome, Said, run, summary, table
from benchmarks.report import options
from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.errors import HybridlabError, ParameterError, UnavailableError
from hybridlab.models import ModelSpec
from hybridlab.models.whisper_transformers import WhisperTransformers
from hybridlab.strategies import Request

WHISPER = ModelSpec(model="pocket-m", backend="openai-whisper", weights="pocket", dtype="float32")
REFERENCES = {"a": "one two", "b": None}
ANSWERS = {"a": "two", "b": None}


def said(latency_s: float, transcript: str = "one two", answer: str = "Two ") -> list[Said]:
    """A round of two requests."""
    return [Said(name, latency_s, transcript, answer) for name in ("a", "b")]


def summed(**outcomes: Outcome) -> dict[str, dict[str, Any]]:
    return summary(outcomes, references=REFERENCES, answers=ANSWERS)


def outcome(seconds: list[float], **words: str) -> Outcome:
    return Outcome(seconds=seconds, said=[said(took / 2, **words) for took in seconds])


def test_ratios_are_taken_within_a_round() -> None:
    # the machine is half as fast in the second round: that weighs on both alike
    rows = summed(original=outcome([2.0, 4.0, 2.0]), twice=outcome([1.0, 2.0, 1.0]))
    twice = rows["twice"]
    assert twice["throughput_over_original"] == 2.0
    assert twice["throughput_over_original_interval"] == [2.0, 2.0]
    assert rows["original"]["values_rps"] == [1.0, 0.5, 1.0]
    assert (twice["median_latency_s"], twice["n"]) == (0.5, 6)
    # latencies are held against the same request of the same round
    assert twice["latency_over_original"] == 0.5
    assert twice["latency_over_original_interval"] == [0.5, 0.5]


def test_words_are_held_against_what_is_known() -> None:
    rows = summed(original=outcome([1.0]), other=outcome([1.0], transcript="one", answer="six"))
    assert (rows["original"]["wer"], rows["other"]["wer"]) == (0.0, 0.5)
    assert (rows["original"]["answers_right"], rows["original"]["answers_known"]) == (1, 1)
    assert rows["other"]["answers_right"] == 0


def test_one_round_has_no_interval_and_is_still_json() -> None:
    rows = summed(original=outcome([1.0]))
    assert rows["original"]["throughput_over_original_interval"] == [None, None]
    assert "NaN" not in json.dumps(rows)


def test_an_empty_transcript_is_no_result_unless_weights_are_random() -> None:
    rows = summed(original=outcome([1.0]), mute=outcome([0.1], transcript=""))
    assert rows["mute"]["status"] == "invalid" and "2 of 2" in rows["mute"]["reason"]
    assert (rows["mute"]["transcripts"], rows["mute"]["answers"]) == (0, 2)
    outcomes = {"original": outcome([1.0], transcript="", answer="x")}
    (row,) = summary(outcomes, references=REFERENCES, answers=ANSWERS, with_text=()).values()
    assert row["status"] == "ok" and row["wer"] is row["answers_right"] is None


def test_an_arm_that_was_skipped_stands_in_the_table_with_its_reason() -> None:
    skipped = Outcome()
    skipped.fail(UnavailableError("no such device"))
    rows = summed(original=outcome([1.0, 1.0]), away=skipped)
    assert (rows["away"]["status"], rows["away"]["n"]) == ("skipped", 0)
    _, original, away = (line.split() for line in table(rows).splitlines())
    assert original[:5] == ["original", "ok", "4", "0.500", "2.000"]
    assert away[:4] == ["away", "skipped", "0", "-"] and away[-3:] == ["no", "such", "device"]


def test_without_its_baseline_there_is_no_race() -> None:
    def broken() -> Any:
        raise ValueError("no file\nand a long story")

    with pytest.raises(HybridlabError, match=r"cannot run: ValueError: no file$"):
        run({BASELINE: broken}, [], rounds=1)


def test_an_offloaded_whisper_says_the_same_and_on_a_cpu_moves_nothing() -> None:
    with pytest.raises(UnavailableError, match="moves nothing"):
        OffloadedWhisper(WHISPER, CpuDevice()).load()
    spec = ModelSpec(model="pocket-s", backend="transformers", weights="pocket", dtype="float32")
    plain, offloaded = (kind(spec, CpuDevice()) for kind in (WhisperTransformers, OffloadedWhisper))
    plain.load()
    WhisperTransformers.load(offloaded)
    offloaded.offload_to("cpu")
    batch = [load_clips(limit=1)[0].samples()]
    assert offloaded.transcribe(batch) == plain.transcribe(batch)


def test_a_twin_shares_the_weights_and_not_the_hooks() -> None:
    lent = LentWhisper(WHISPER, CpuDevice())
    lent.load()
    module = lent.module()
    lent.load()
    assert lent.module() is module  # lent, not loaded again
    copy = twin(module)
    assert [p.data_ptr() for p in copy.parameters()] == [p.data_ptr() for p in module.parameters()]
    assert module.encoder._forward_hooks
    assert not copy.encoder._forward_hooks
    assert not copy.decoder._forward_pre_hooks


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--asr-model", "tinny"], "asr_model"),
        (["--weights", "random"], "fit neither model"),
        (["--asr-model", "tiny"], "no 'pocket' weights"),
        (["--rounds", "0"], "rounds"),
        (["--out", "/nowhere/at/all.json"], "does not exist"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        command.parameters(options(None, arguments, **command.DEFAULTS), str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_random_weights_do_exactly_the_fixed_work(tmp_path: Path) -> None:
    device = CpuDevice()
    random = replace(WHISPER, model="pocket-s", weights="random")
    voxtral = ModelSpec(
        model="pocket", backend="transformers", weights="random", dtype="float32", seed=1
    )
    makers = Pair(saved(random, device, tmp_path), voxtral, device).makers()
    tokens = {"asr": 4, "llm": 4}
    samples = load_clips(limit=1)[0].samples()
    request = Request(
        id="a", samples=samples, question="What?", max_new_tokens=4, asr_max_new_tokens=4
    )
    found = run(makers, [request], rounds=1, fixed_tokens=tokens)
    passes = {name: own.passes for name, own in found.items() if own.status == "ok"}
    assert {"original", "transformers-pipeline", *OURS} <= set(passes)
    assert passes["original"] == passes["transformers-pipeline"] == tokens
    assert passes["sequential/plain"] == passes["swapping/single-buffer"] == tokens
    assert passes["solo/shared-prefix"] == {"llm": 9}  # hears once, then twice four


@pytest.mark.slow
def test_a_small_race_of_the_real_arms(tmp_path: Path) -> None:
    arguments = ["--rounds", "1", "--trials", "2", "--device", "cpu"]
    found = command.measured(options(None, arguments, **command.DEFAULTS), str(tmp_path))
    arms = found["arms"]
    assert list(arms) == [*PEERS, *OURS]
    assert arms.pop("accelerate-offload")["status"] == "skipped"
    if find_spec("faster_whisper") is None:
        arms.pop("faster-whisper")
    for name, row in arms.items():
        assert (row["status"], row["reason"]) == ("ok", ""), name
        assert row["transcripts"] == row["answers"] == row["n"] == 2, name
        assert row["wer"] < 0.2, name
    assert arms["original"]["throughput_over_original"] == 1.0


def test_each_of_ours_has_the_whisper_of_its_variant() -> None:
    device = CpuDevice()
    voxtral = ModelSpec(model="pocket", backend="transformers", weights="pocket", dtype="float32")
    makers = Pair(WHISPER, voxtral, device).makers()
    backends = {name: makers[name]().asr.spec.backend for name in OURS if "solo" not in name}
    assert backends.pop("parallel/ctranslate2") == "faster-whisper"
    assert set(backends.values()) == {"openai-whisper"}
