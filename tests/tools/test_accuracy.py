"""Predictions beside what others published, and the page that shows both."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from hybridlab import catalog
from hybridlab.cli.commands import app
from hybridlab.planner.model_estimate import QUANTITIES
from tools import accuracy


def test_the_page_is_generated() -> None:
    assert accuracy.PAGE.read_text(encoding="utf-8") == accuracy.page()


@pytest.mark.parametrize("row", accuracy.rows(), ids=lambda row: row.id)
def test_a_published_reading_is_met_or_explained(row: accuracy.Row) -> None:
    if row.quantity == "weights_bytes":
        assert abs(row.error) < 0.005  # the reading's own digits
    elif row.quantity == "request_peak_allocated_bytes":
        assert abs(row.error) < 0.03
    else:
        assert abs(row.error) < 0.15 or row.note


@pytest.mark.parametrize("model", [*catalog.WHISPERS, *catalog.VOXTRALS])
def test_every_model_is_estimated_in_order(model: str) -> None:
    done = CliRunner().invoke(app, ["estimate", model, "--card", "h200", "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    for name in QUANTITIES:
        assert figures[name]["low"] <= figures[name]["expected"] <= figures[name]["high"]
    expected = [figures[name]["expected"] for name in QUANTITIES if name != "load_peak_bytes"]
    assert expected == sorted(expected)


def test_what_cannot_be_estimated_is_one_line() -> None:
    for arguments, words in (
        (["foo"], "unknown model 'foo'"),
        (["mini-3b", "--backend", "faster-whisper"], "leave out --backend"),
        (["tiny", "--dtype", "int4"], "cannot keep 'int4'"),
        (["tiny", "--audio-s", "0"], "above zero"),
    ):
        done = CliRunner().invoke(app, ["estimate", *arguments])
        assert (done.exit_code, done.output.count("\n")) == (2, 1)
        assert words in done.output
