"""Quality beside memory and speed: known answers, and two real tenants on two clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hybridlab.config.params import BesideParams
from hybridlab.experiments.plans import quality
from hybridlab.experiments.session import Session
from hybridlab.reporting import figures, key_findings, tables
from hybridlab.reporting.rows import case_labels
from hybridlab.units import MIB

WORDS = "one two three four five six seven eight nine ten"


def case(model: str, mib: float, *, tenant: str = "asr", status: str = "ok") -> dict[str, Any]:
    return {
        "case_id": model,
        "experiment": "quality",
        "variant": tenant,
        "status": status,
        "reason": "",
        "llm_model": "pocket",
        "llm_weights": "pocket",
        "llm_weights_bytes": mib * MIB if tenant == "llm" else None,
        "asr_model": None if tenant == "llm" else model,
        "asr_weights": "pocket",
        "asr_weights_bytes": mib * MIB if tenant == "asr" else None,
        "process_baseline_bytes": 100 * MIB,
        "request_peak_bytes": (150 + mib) * MIB,
        "device": "cpu",
    }


def said(model: str, wrong: int, *, clips: int = 10) -> list[dict[str, Any]]:
    """Ten clips of ten words, `wrong` of each said wrong; the first clip slow."""
    words = WORDS.split()
    heard = " ".join(["what"] * wrong + words[wrong:])
    return [
        {
            "case_id": model,
            "reference": WORDS.title() + ".",
            "transcript": heard,
            "audio_s": 10.0,
            "latency_s": 9.0 if number == 0 else 0.5,
            "is_first_request": number == 0,
        }
        for number in range(clips)
    ]


CASES = pd.DataFrame([case("large", 100), case("small", 40), case("v", 20, tenant="llm")])
TRIALS = pd.DataFrame([*said("large", 1), *said("small", 5), *said("v", 2)])


def test_words_wrong_speed_and_bytes_of_each_tenant() -> None:
    best, voxtral, small = tables.qualities(TRIALS, CASES)
    assert [one.model for one in (best, voxtral, small)] == ["large", "pocket", "small"]
    assert (best.wer.value, best.clips, best.words) == (0.1, 10, 100)
    assert best.rtfx.value == 20 and best.rtfx.n == 9  # the first clip is left out
    assert best.weights_bytes == 100 * MIB and best.peak_bytes == 150 * MIB
    assert [one.word for one in (best, voxtral, small)] == ["best", "good", "poor"]


def test_a_disturbed_case_keeps_its_text_and_loses_its_times() -> None:
    cases = pd.DataFrame([case("large", 100, status="invalid")])
    (one,) = tables.qualities(TRIALS, cases)
    assert one.wer.value == 0.1 and one.rtfx.n == 0


def test_figure_table_and_sentences_say_the_same() -> None:
    title = " ".join(figures.quality_memory(TRIALS, CASES).get_suptitle().split())
    assert title == (
        "Whisper large gets 10.0 % of the words wrong; Voxtral pocket, with 46.7 % of its memory, "
        "gets 20.0 %"
    )
    assert list(tables.quality_by_size(TRIALS, CASES)["quality"]) == ["best", "good", "poor"]
    assert key_findings.quality(TRIALS, CASES)[0].startswith("Whisper large (pocket weights): best")


def test_the_smallest_may_be_no_clearly_worse() -> None:
    trials = pd.DataFrame([*said("large", 0), *said("v", 0, clips=9), *said("v", 1, clips=1)])
    title = " ".join(figures.quality_memory(trials, CASES).get_suptitle().split())
    assert title == (
        "Whisper large gets none of 100 words wrong; Voxtral pocket, with 46.7 % of its memory, "
        "gets 1.0 %, which is not clearly more"
    )


def test_what_was_left_out_is_said_once() -> None:
    lost = [{**case(s, 9, status="skipped"), "reason": quality.NO_TEXT} for s in ("tiny", "base")]
    busy = [{**case(s, 9, status="invalid"), "reason": "busy by 30%"} for s in ("large", "small")]
    broken = {**case("turbo", 9, status="oom"), "reason": "no memory"}
    sentences = key_findings.quality(TRIALS, pd.DataFrame([*busy, *lost, broken]))
    assert len(sentences) == 5
    assert sentences[2:] == [
        f"Not held against the references: Whisper tiny, Whisper base ({quality.NO_TEXT}).",
        "Their texts count, their times do not: Whisper large, Whisper small (busy by 30%).",
        "turbo by itself was not measured (oom): no memory.",
    ]


SIZES = {"tiny": 75, "base": 140, "small": 460, "medium": 1450, "turbo": 1540, "large-v3": 2940}


@pytest.mark.parametrize("wrong", [(4, 3, 2, 1, 0, 0), (1,) * 6, (9, 0, 9, 0, 9, 0)])
def test_labels_cover_no_mark_and_no_other_label(wrong: tuple[int, ...]) -> None:
    sizes = [case(size, mib) for size, mib in SIZES.items()]
    trials = [row for size, n in zip(SIZES, wrong, strict=True) for row in said(size, n)]
    cases = pd.DataFrame([*sizes, case("v", 8900, tenant="llm")])
    figure = figures.quality_memory(pd.DataFrame([*trials, *said("v", 1)]), cases)
    (ax,) = figure.axes
    figure.draw_without_rendering()
    labels = [text.get_window_extent() for text in ax.texts if text.get_text()]
    marks = [ax.transData.transform(line.get_xydata()[0]) for line in ax.lines]
    assert len(labels) == len(marks) == 7
    for index, box in enumerate(labels):
        assert ax.bbox.x0 < box.x0 and box.x1 < ax.bbox.x1
        assert ax.bbox.y0 < box.y0 and box.y1 < ax.bbox.y1
        assert not any(box.overlaps(other) for other in labels[index + 1 :])
        assert not any(box.contains(*mark) for mark in marks)


def test_a_size_is_named_where_cases_of_all_kinds_stand_together() -> None:
    assert list(case_labels(CASES)) == [
        "large by itself",
        "small by itself",
        "pocket by itself",
    ]


@pytest.mark.parametrize("trials", [pd.DataFrame(), TRIALS.assign(reference=None)])
def test_without_references_there_is_no_quality(trials: pd.DataFrame) -> None:
    assert tables.qualities(trials, CASES) == []
    assert not figures.quality_memory(trials, CASES).axes
    assert key_findings.quality(trials, CASES) == []


def test_each_tenant_alone_is_measured_and_random_weights_are_skipped(tmp_path: Path) -> None:
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
    assert {one.tenant for one in found} == {"llm", "asr"}
    session.close()
