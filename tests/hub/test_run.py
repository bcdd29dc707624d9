"""A run with released weights: fetched before its first case, pinned, and measured offline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridlab.config.params import BesideParams, SetupParams, VerdictParams
from hybridlab.errors import UnavailableError, WeightsError
from hybridlab.experiments import notebook_runner
from hybridlab.experiments.plans import quality
from hybridlab.experiments.run_weights import WEIGHTS_FILE, provide, recorded
from hybridlab.models import checkpoint
from hybridlab.models.checkpoint import commits_of
from hybridlab.models.pair import specs_of
from hybridlab.models.source import check_source
from hybridlab.processes import fork_server
from hybridlab.processes.fork_server import ADDRESS_VARIABLE, CaseServer
from hybridlab.results.reader import read_rows
from tests.hub import repositories as r
from tests.hub.server import Fault, Hub
from tests.sessions import assert_ok, open_session

RELEASED: dict[str, Any] = {
    "llm_model": "mini-3b",
    "llm_weights": "hub",
    "asr_model": "tiny",
    "asr_backend": "transformers",
    "asr_weights": "hub",
    "asr_decoding": "plain",
    "device": "cpu",
    "llm_dtype": "float32",
    "asr_dtype": "float32",
    "max_new_tokens": 8,
    "asr_max_new_tokens": 32,
    "trials": 1,
    "warmup": 0,
    "max_other_cpu_share": 1.0,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def cache(home: Path) -> Path:
    """Of all tests here, so that they share the server of cases, and empty for each."""
    shutil.rmtree(home / "hub", ignore_errors=True)
    return home / "hub"


@pytest.fixture(scope="module", autouse=True)
def _cases(home: Path, served: Hub) -> Iterator[CaseServer]:
    """Cases see this machine's cache, and that hub if they asked one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))
        patch.setenv("HF_ENDPOINT", served.url)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        # not the server of other tests
        patch.delenv(ADDRESS_VARIABLE, raising=False)
        patch.setattr(fork_server, "_shared", {})
        with CaseServer() as server:
            yield server


@pytest.fixture(autouse=True)
def _machine(machine: dict[str, str]) -> None:
    """Empty, and online."""


def test_all_that_a_notebook_loads_is_named() -> None:
    params = BesideParams.from_mapping(
        {**RELEASED, "load_backends": ["transformers", "openai-whisper"]}
        | {"asr_models": ["tiny", "base"], "quality_models": ["base", "pocket-s"]}
        | {"sizes_weights": "hub", "asr_revision": "v1"}
    )
    named = [(spec.model, spec.backend, spec.weights, spec.revision) for spec in specs_of(params)]
    assert named == [
        ("mini-3b", "transformers", "hub", ""),
        ("tiny", "transformers", "hub", "v1"),
        ("tiny", "openai-whisper", "hub", ""),
        ("tiny", "transformers", "hub", "v1"),
        ("base", "transformers", "hub", ""),
        ("pocket-s", "transformers", "pocket", ""),
    ]
    assert specs_of(VerdictParams()) == []


def test_no_case_asks_the_network(hub: Hub, tmp_path: Path) -> None:
    session = open_session(tmp_path, SetupParams, **RELEASED)
    session.preflight()
    hub.requests.clear()
    hub.faults.append(Fault(".", status=503))
    row = session.runner.run(session.case("setup"))
    assert_ok([row], 1)
    assert hub.requests == []
    assert row["llm_revision"] == f"commit {hub.commit(r.VOXTRAL)}"


def test_a_run_goes_on_with_its_commits_when_main_moves(hub: Hub, tmp_path: Path) -> None:
    session = open_session(tmp_path, SetupParams, **RELEASED)
    session.preflight()
    first = hub.commit(r.WHISPER)
    held = json.loads((session.part.run_dir / WEIGHTS_FILE).read_text())
    assert held[r.WHISPER]["commit"] == first
    assert held[r.WHISPER]["bytes"] == sum(held[r.WHISPER]["files"].values())
    second = hub.move(r.WHISPER)
    other = open_session(tmp_path / "elsewhere", SetupParams, **RELEASED, asr_revision=second)
    other.preflight()  # whose commit is cached beside the first
    again = open_session(tmp_path, SetupParams, **RELEASED)
    again.preflight()
    assert again.case("setup").asr.revision == first  # type: ignore[union-attr]
    assert other.case("setup").asr.revision == second  # type: ignore[union-attr]


def test_another_commit_is_refused_in_the_same_folder(hub: Hub, tmp_path: Path) -> None:
    open_session(tmp_path, SetupParams, **RELEASED).preflight()
    second = hub.move(r.WHISPER)
    with pytest.raises(UnavailableError, match=r"measured openai/whisper-tiny at commit .* mixed"):
        open_session(
            tmp_path, SetupParams, **RELEASED, asr_revision=second, headless=False
        ).preflight()


def test_a_backend_that_is_not_installed_skips_its_own_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = checkpoint.find_spec
    monkeypatch.setattr(
        checkpoint, "find_spec", lambda name: None if name == "faster_whisper" else there(name)
    )
    session = open_session(tmp_path, BesideParams, **RELEASED, load_backends=["faster-whisper"])
    llm, asr, other, *_ = specs_of(session.params)
    assert other.backend == "faster-whisper"
    session.commits = commits_of(provide([llm, asr, other], tmp_path))
    replaced = replace(session.asr, backend="faster-whisper")
    assert session.case("loading", asr=replaced).asr == replaced
    with pytest.raises(UnavailableError, match="faster-whisper is not installed"):
        check_source(replaced)


def test_weights_that_cannot_be_had_skip_the_notebook(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.append(Fault("/api/models", status=503))
    session = open_session(tmp_path, SetupParams, **RELEASED)
    with pytest.raises(SystemExit):
        session.preflight()
    assert "skipped: mistralai/Voxtral-Mini-3B-2507 answers with status 503" in (
        capsys.readouterr().out
    )


def test_another_model_that_lacks_skips_its_own_cases(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {**RELEASED, "sizes_weights": "hub", "sizes_dtype": "float32"}
    session = open_session(
        tmp_path, BesideParams, **values, asr_models=[], quality_models=["tiny", "base"]
    )
    session.preflight()
    assert "its cases are skipped: openai/whisper-base" in capsys.readouterr().out
    llm, tiny, base = quality.measure(session)
    assert_ok([llm, tiny], 2)
    assert base["status"] == "skipped"
    assert "openai/whisper-base is not on this machine yet" in base["reason"]


@pytest.mark.slow
def test_a_batch_fetches_first_and_resumes_with_the_same(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def listen(state: notebook_runner.Progress) -> None:
        told.append(state.fetching.source if state.fetching else state.current)

    values = {**RELEASED}
    run = tmp_path / "run"

    def start(*, resume: bool = False) -> None:
        notebook_runner.run_suite(
            values, preset="own", only=["00"], output=run, resume=resume, listener=listen
        )

    hub.faults.append(Fault("/api/models/openai", status=503))
    with pytest.raises(WeightsError, match="answers with status 503"):
        start()
    assert not run.exists()  # nothing began
    hub.faults.clear()
    start()
    assert told.index(r.VOXTRAL) < told.index("00_setup")
    (row,) = read_rows(run / "parts" / "00_setup" / "cases.jsonl")
    assert row["asr_revision"] == f"commit {hub.commit(r.WHISPER)}"
    # the commit of this run is neither here nor on the hub any more
    held = json.loads((run / WEIGHTS_FILE).read_text())
    held[r.WHISPER]["commit"] = "1" * 40
    (run / WEIGHTS_FILE).write_text(json.dumps(held))
    assert recorded(run)[r.WHISPER] == "1" * 40
    with pytest.raises(WeightsError, match=rf"no revision {'1' * 40}.*goes on with the commits"):
        start(resume=True)
