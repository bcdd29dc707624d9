"""Quality beside memory and speed: known answers, and two real tenants on two clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hybridlab import findings, plots, summary
from hybridlab.experiments import quality
from hybridlab.experiments.lab import Lab
from hybridlab.params import BesideParams
from hybridlab.units import MIB

WORDS = "one two three four five six seven eight nine ten"


def case(model: str, mib: float, *, tenant: str = "whisper", status: str = "ok") -> dict[str, Any]:
    return {
        "case_id": model,
        "experiment": "quality",
        "variant": tenant,
        "status": status,
        "reason": "",
        "voxtral": "pocket",
        "voxtral_weights": "pocket",
        "voxtral_bytes": mib * MIB if tenant == "voxtral" else None,
        "whisper_size": None if tenant == "voxtral" else model,
        "whisper_weights": "pocket",
        "whisper_bytes": mib * MIB if tenant == "whisper" else None,
        "base_bytes": 100 * MIB,
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
            "first": number == 0,
        }
        for number in range(clips)
    ]


CASES = pd.DataFrame([case("large", 100), case("small", 40), case("v", 20, tenant="voxtral")])
TRIALS = pd.DataFrame([*said("large", 1), *said("small", 5), *said("v", 2)])


def test_words_wrong_speed_and_bytes_of_each_tenant() -> None:
    best, voxtral, small = summary.qualities(TRIALS, CASES)
    assert [one.model for one in (best, voxtral, small)] == ["large", "pocket", "small"]
    assert (best.wer.value, best.clips, best.words) == (0.1, 10, 100)
    assert best.rtfx.value == 20 and best.rtfx.n == 9  # the first clip is left out
    assert best.weights_bytes == 100 * MIB and best.peak_bytes == 150 * MIB
    assert [one.word for one in (best, voxtral, small)] == ["best", "good", "poor"]


def test_a_disturbed_case_keeps_its_text_and_loses_its_times() -> None:
    cases = pd.DataFrame([case("large", 100, status="invalid")])
    (one,) = summary.qualities(TRIALS, cases)
    assert one.wer.value == 0.1 and one.rtfx.n == 0


def test_figure_table_and_sentences_say_the_same() -> None:
    title = " ".join(plots.quality_memory(TRIALS, CASES).get_suptitle().split())
    assert title == (
        "Whisper large gets 10 % of the words wrong; Voxtral pocket, with 20 % of its bytes, "
        "gets 20 %"
    )
    assert list(summary.quality_by_size(TRIALS, CASES)["quality"]) == ["best", "good", "poor"]
    assert findings.quality(TRIALS, CASES)[0].startswith("Whisper large (pocket weights): best")


@pytest.mark.parametrize("trials", [pd.DataFrame(), TRIALS.assign(reference=None)])
def test_without_references_there_is_no_quality(trials: pd.DataFrame) -> None:
    assert summary.qualities(trials, CASES) == []
    assert not plots.quality_memory(trials, CASES).axes
    assert findings.quality(trials, CASES) == []


def test_each_tenant_alone_is_measured_and_random_weights_are_skipped(tmp_path: Path) -> None:
    values = {"quality_sizes": ["pocket-s", "tiny"], "output_dir": str(tmp_path / "run")}
    lab = Lab.open(BesideParams.from_mapping({**values, "headless": True, "most_foreign_cpu": 1.0}))
    lab.clips[2:] = []
    rows = quality.measure(lab)
    assert [row["status"] for row in rows] == ["ok", "ok", "skipped"]
    assert rows[2]["reason"] == quality.NO_TEXT
    trials, cases = lab.table("trials"), lab.table("cases")
    assert list(trials.groupby("variant").size()) == [2, 2]
    assert trials["answer"].isna().all() and trials["transcript"].notna().all()
    found = summary.qualities(trials, cases)
    assert [one.clips for one in found] == [2, 2]
    assert {one.tenant for one in found} == {"voxtral", "whisper"}
    lab.close()
