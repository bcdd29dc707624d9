"""The Python API: every block of its page runs, it agrees with the commands, and it stays cheap."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hybridlab
from hybridlab.cli.commands import app
from hybridlab.errors import ParameterError, RunFolderError
from hybridlab.units import GB
from tests.synthetic import write_run


@pytest.mark.slow
@pytest.mark.usefixtures("case_server")
def test_every_block_of_the_page_runs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (project / "docs" / "python-api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name in ("notebooks", "params", "outputs/reference"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(project / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 5
    assert names["best"].margin_bytes >= GB
    assert names["run"].status == "completed"
    assert names["run"].folder == tmp_path / "outputs" / "mine"
    assert len(names["run"].cases) > 0 and (names["run"].cases["peak_bytes"] > 0).all()
    assert len(names["spans"]) > 0
    assert {one.transcripts[0].language for one in names["heard"].ran} == {"en"}
    assert set(names["published"].cases["evidence"].dropna()) <= {"simulated"}


def test_importing_and_planning_load_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, hybridlab; before = set(sys.modules)\n"
        "assert not [name for name in before if name.startswith('hybridlab.')]\n"
        "from hybridlab.cli.commands import app\n"
        "app(['plan', '--json'], standalone_mode=False)\n"
        "assert hybridlab.plan('t4').pick is not None\n"
        "assert not {'torch', 'pandas', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plan_is_what_the_command_prints() -> None:
    report = hybridlab.plan("l4", audio_s=60, beams=2)
    printed = CliRunner().invoke(
        app, ["plan", "--card", "l4", "--audio-s", "60", "--beams", "2", "--json"]
    )
    assert json.loads(printed.output) == report.as_dict()
    assert list(report.frame["total_bytes"]) == [pair.total_bytes for pair in report.pairs]
    best = hybridlab.plan("l4", margin_gb=5).pick
    assert best is not None and best.margin_bytes >= 5 * GB
    assert hybridlab.plan("l4", margin_gb=500).pick is None
    assert len(repr(report).splitlines()) == len(report.by_size) + 2
    assert report._repr_html_().count("<tr") == len(report.by_size) + 1


@pytest.mark.parametrize(
    "wrong",
    [{"card": "t44"}, {"llm_dtype": "fp8"}, {"attention": "fast"}, {"beams": 0}],
)
def test_a_plan_refuses_what_it_does_not_know(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        hybridlab.plan(**wrong)


def test_a_run_is_read_with_its_verdict(tmp_path: Path) -> None:
    run = hybridlab.load_run(write_run(tmp_path))
    assert run.status == "completed"
    assert repr(run).endswith(f"completed, {len(run.cases)} cases, {len(run.trials)} requests)")
    assert len(run.claims) == len(run.verdict()["claims"]) > 0
    assert run.verdict(max_p95_s=0.001)["recommendation"] is None
    with pytest.raises(ParameterError, match="0 or more"):
        run.verdict(max_wer=-1)
    with pytest.raises(ValueError, match="no table 'nothing'"):
        run.table("nothing")


def test_a_published_run_has_its_tables_and_empty_ones(project: Path) -> None:
    run = hybridlab.load_run(project / "outputs" / "reference" / "t4-simulated")
    assert len(run.cases) > 0 and (run.cases["peak_bytes"] > 0).all()
    assert run.trials.empty and "latency_s" in run.trials


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="does not hold a run"):
        hybridlab.load_run(tmp_path)


def test_only_the_api_is_added_to_the_package() -> None:
    assert set(hybridlab.__all__) <= set(dir(hybridlab))
    with pytest.raises(AttributeError, match="no attribute 'plans'"):
        _ = hybridlab.plans  # type: ignore[attr-defined]
