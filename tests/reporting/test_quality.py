"""Quality beside memory and speed: known answers, and two real models on two clips."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hybridlab.config.params import BesideParams
from hybridlab.experiments.plans import quality
from hybridlab.experiments.session import Session
from hybridlab.reporting import figures, key_findings, tables
from hybridlab.reporting.rows import case_labels
from hybridlab.units import MIB
from tests.reporting.frames import frame

WORDS = "one two three four five six seven eight nine ten"
MODELS = "case_id variant llm_weights_bytes asr_weights_bytes asr_model status reason"


def cases_of(*rows: tuple[str, str, float] | tuple[str, str, float, str, str]) -> pd.DataFrame:
    """(model, role, MiB of its weights), and its status with a reason where it is not 'ok'."""
    own = []
    for model, role, mib, status, reason in ((*row, "ok", "")[:5] for row in rows):
        bytes_ = (mib * MIB, None) if role == "llm" else (None, mib * MIB)
        own.append((model, role, *bytes_, None if role == "llm" else model, status, reason))
    cases = frame(MODELS, *own, experiment="quality", llm_model="pocket", device="cpu")
    peaks = [(150 + row[2]) * MIB for row in rows]
    weights = {"llm_weights": "pocket", "asr_weights": "pocket"}
    return cases.assign(process_baseline_bytes=100 * MIB, request_peak_bytes=peaks, **weights)


def said(model: str, wrong: int, *, clips: int = 10) -> pd.DataFrame:
    """Clips of ten words, `wrong` of each said wrong; the first clip slow."""
    words = WORDS.split()
    rows = [(9.0 if number == 0 else 0.5, number == 0) for number in range(clips)]
    return frame(
        "latency_s is_first_request",
        *rows,
        case_id=model,
        reference=WORDS.title() + ".",
        transcript=" ".join(["what"] * wrong + words[wrong:]),
        audio_s=10.0,
    )


CASES = cases_of(("large", "asr", 100), ("small", "asr", 40), ("v", "llm", 20))
TRIALS = pd.concat([said("large", 1), said("small", 5), said("v", 2)])


def title_of(trials: pd.DataFrame) -> str:
    return " ".join(figures.quality_memory(trials, CASES).get_suptitle().split())


def test_best_first_with_speed_and_bytes() -> None:
    best, voxtral, small = tables.qualities(TRIALS, CASES)
    assert [one.model for one in (best, voxtral, small)] == ["large", "pocket", "small"]
    assert (best.wer.value, best.clips, best.words) == (0.1, 10, 100)
    assert best.rtfx.value == 20 and best.rtfx.n == 9  # the first clip is left out
    assert best.weights_bytes == 100 * MIB and best.peak_bytes == 150 * MIB
    assert [one.word for one in (best, voxtral, small)] == ["best", "good", "poor"]


def test_a_disturbed_case_keeps_its_text_and_loses_its_times() -> None:
    (one,) = tables.qualities(TRIALS, cases_of(("large", "asr", 100, "invalid", "busy")))
    assert one.wer.value == 0.1 and one.rtfx.n == 0


def test_figure_table_and_sentences_say_the_same() -> None:
    assert title_of(TRIALS) == (
        "Whisper large gets 10.0 % of the words wrong; Voxtral pocket, with 46.7 % of its memory, "
        "gets 20.0 %"
    )
    assert list(tables.quality_by_size(TRIALS, CASES)["quality"]) == ["best", "good", "poor"]
    assert key_findings.quality(TRIALS, CASES) == [f"{title_of(TRIALS)}."]


def test_the_smallest_may_be_no_clearly_worse() -> None:
    trials = pd.concat([said("large", 0), said("v", 0, clips=9), said("v", 1, clips=1)])
    assert title_of(trials) == (
        "Whisper large gets none of 100 words wrong; Voxtral pocket, with 46.7 % of its memory, "
        "gets 1.0 %, which is not clearly more"
    )


def test_what_was_left_out_is_said_once() -> None:
    cases = cases_of(
        *((size, "asr", 9, "invalid", "busy by 30%") for size in ("large", "small")),
        *((size, "asr", 9, "skipped", quality.NO_TEXT) for size in ("tiny", "base")),
        ("turbo", "asr", 9, "oom", "no memory"),
    )
    sentences = key_findings.quality(TRIALS, cases)
    assert sentences[1:] == [
        f"Not held against the references: Whisper tiny, Whisper base ({quality.NO_TEXT}).",
        "Their texts count, their times do not: Whisper large, Whisper small (busy by 30%).",
        "turbo by itself was not measured (out of memory): no memory.",
    ]


def test_a_size_is_named_where_cases_of_all_kinds_stand_together() -> None:
    names = ["large by itself", "small by itself", "pocket by itself"]
    assert list(case_labels(CASES)) == names


@pytest.mark.parametrize("trials", [pd.DataFrame(), TRIALS.assign(reference=None)])
def test_without_references_there_is_no_quality(trials: pd.DataFrame) -> None:
    assert tables.qualities(trials, CASES) == []
    assert not figures.quality_memory(trials, CASES).axes
    assert key_findings.quality(trials, CASES) == []


def test_each_model_alone_is_measured_and_random_weights_are_skipped(tmp_path: Path) -> None:
    values = {"quality_models": ["pocket-s", "tiny"], "output_dir": str(tmp_path / "run")}
    session = Session.open(
        BesideParams.from_mapping({**values, "headless": True, "max_other_cpu_share": 1.0})
    )
    session.clips[2:] = []
    rows = quality.measure(session)
    assert [row["status"] for row in rows] == ["ok", "ok", "skipped"]
    assert rows[2]["reason"] == quality.NO_TEXT
    trials, cases = session.table("trials"), session.table("cases")
    assert list(trials.groupby("variant").size()) == [2, 2]
    assert trials["answer"].isna().all() and trials["transcript"].notna().all()
    found = tables.qualities(trials, cases)
    assert [one.clips for one in found] == [2, 2]
    assert {one.role for one in found} == {"llm", "asr"}
    session.close()


def test_texts_that_were_cut_short_are_no_error_rate_and_are_counted() -> None:
    cut = said("large", 6, clips=3).assign(transcript_finish="length")
    trials = pd.concat(
        [cut, said("large", 1, clips=7).assign(transcript_finish="stop"), said("small", 5)]
    )
    best, _ = tables.qualities(trials, cases_of(("large", "asr", 100), ("small", "asr", 40)))
    assert (best.wer.value, best.clips, best.cut) == (0.1, 7, 3)
    table = tables.quality_by_size(trials, CASES)
    assert list(table["cut short"]) == [3, 0]


def test_a_model_whose_texts_were_all_cut_has_no_error_rate_and_a_reason() -> None:
    trials = said("large", 6, clips=3).assign(transcript_finish="length")
    cases = cases_of(("large", "asr", 100))
    assert tables.qualities(trials, cases) == []
    assert key_findings.quality(trials, cases) == [
        "3 of 3 texts were cut short: 3 transcripts cut at the limit of tokens; cut texts are in "
        "no word error rate, no parity and no claim.",
        "Whisper large has no word error rate: 3 transcripts, all cut short.",
    ]
