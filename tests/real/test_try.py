"""`hybridlab try` with released weights on real speech."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from hybridlab.catalog import SAMPLE_RATE_HZ
from hybridlab.cli.commands import app
from tools import real_speech

pytestmark = pytest.mark.real


def test_every_backend_hears_the_words_and_the_language(weights: Path, tmp_path: Path) -> None:
    recordings = [real_speech.librivox()[0], real_speech.spoken("de")[0]]
    files = []
    for number, one in enumerate(recordings):
        files.append(tmp_path / f"{number}.wav")
        soundfile.write(files[-1], one.samples, SAMPLE_RATE_HZ)
    ended = CliRunner().invoke(
        app, ["try", *map(str, files), "--weights", str(weights), "--device", "cpu", "--json"]
    )
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["warning"] == ""
    ran = [one for one in found["backends"] if not one["reason"]]
    assert len(ran) >= 2
    for one in ran:
        english, german = one["transcripts"]
        assert recordings[0].alignment(english["text"]).wer < 0.05
        assert (english["language"], german["language"]) == ("en", "de")
        assert english["finish_reason"] == "stop"
        # float32 weights of 73 million parameters, and the work
        used_bytes = one["request_peak_bytes"] - one["process_baseline_bytes"]
        assert 290_000_000 < used_bytes < 1_500_000_000
