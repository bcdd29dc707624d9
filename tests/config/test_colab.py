"""Colab as far as it can be had elsewhere: its variable, its module, its form, its small host.

Not tried here: a T4, the released weights themselves, Colab's own page. The pocket models stand in
under the released names, NVML is a stand-in that counts one GPU, and pip only writes down what it
was asked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from hybridlab import catalog, planner
from hybridlab.config import preset_files as presets
from hybridlab.config.params import NOTEBOOKS, BesideParams, SequentialParams, SetupParams
from hybridlab.config.preset_files import read_yaml
from hybridlab.devices import CpuDevice
from hybridlab.devices.cpu import check_host_memory
from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.experiments.notebook_runner import _given
from hybridlab.experiments.plans import co_residency
from hybridlab.experiments.session import Session
from hybridlab.models.base import ModelSpec
from hybridlab.models.pocket import pocket_dir
from hybridlab.models.whisper_transformers import WhisperTransformers
from hybridlab.planner.memory_plan import HOST_BASE_BYTES
from hybridlab.planner.weights import voxtral_weights_bytes
from hybridlab.results.manifest import read_manifest
from hybridlab.units import GB
from tests.models.test_hub import put

#: Memory of the host of Colab's T4.
HOST_BYTES = int(12.7 * GB)


@pytest.fixture
def t4_colab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    monkeypatch.setattr(presets, "has_gpu", lambda: True)


def cell(**edited: Any) -> dict[str, Any]:
    """A parameter cell's names with what a reader has typed into the form."""
    return {**SequentialParams().model_dump(), **edited}


@pytest.mark.usefixtures("t4_colab")
def test_the_badge_runs_released_weights_and_keeps_what_the_reader_typed() -> None:
    params = SequentialParams.from_namespace(cell(trials=3))
    assert (params.llm_model, params.llm_weights) == ("mini-3b", "hub")
    assert (params.device, params.llm_dtype, params.preset) == ("cuda", "float16", "colab-t4")
    assert params.trials == 3
    assert params.asr_model == read_yaml(presets.PRESETS_DIR / "colab-t4.yaml")["asr_model"]
    assert (params.max_new_tokens, params.asr_max_new_tokens) == ("auto", "auto")


@pytest.mark.usefixtures("t4_colab")
def test_an_empty_preset_leaves_the_cell_alone() -> None:
    params = SequentialParams.from_namespace(cell(preset=""))
    assert params == SequentialParams(preset="")


@pytest.mark.usefixtures("t4_colab")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_takes_the_t4s_preset(name: str) -> None:
    model = NOTEBOOKS[name]
    params = model.from_namespace(model().model_dump())
    assert params.llm_weights == params.asr_weights == "hub"
    assert _given(params)["preset"] == ""  # the runner has filled it in


def test_elsewhere_and_without_a_gpu_nothing_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SequentialParams.from_namespace(cell()) == SequentialParams()
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    monkeypatch.setattr(presets, "has_gpu", lambda: False)
    assert SequentialParams.from_namespace(cell()) == SequentialParams()


def test_a_preset_can_be_named_anywhere() -> None:
    assert SetupParams.from_mapping({"preset": "option-b"}).asr_model == "large-v3"
    with pytest.raises(ParameterError, match="did you mean 'option-a'"):
        SetupParams.from_mapping({"preset": "optiona"})
    with pytest.raises(ParameterError, match="preset = 3"):
        SetupParams.from_mapping({"preset": 3})


# ---------------------------------------------------------------------------------- 12.7 GB host


def test_nothing_of_the_t4s_preset_needs_the_hosts_memory_for_voxtral() -> None:
    values = read_yaml(presets.PRESETS_DIR / "colab-t4.yaml")
    assert values["load_paths"] == ["direct"]
    assert values.get("swap", "asr") == "asr"
    for size in values["asr_models"]:
        plan = planner.plan_pair(
            catalog.card("t4"),
            catalog.whisper(size),
            catalog.voxtral("mini-3b"),
            backend=values["sizes_backend"],
            dtype=values["sizes_dtype"],
        )
        assert plan.fits_host(HOST_BYTES) and plan.host_bytes == 0


def test_swapping_voxtral_is_refused_where_its_copy_would_fill_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Gpu:
        is_host = False

    copy = voxtral_weights_bytes(catalog.voxtral("mini-3b"), dtype="float16")
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: HOST_BYTES - HOST_BASE_BYTES)
    with pytest.raises(UnavailableError, match=r"9\.50 GiB free.*takes 8\.7\d GiB.*reserve"):
        check_host_memory(copy, Gpu())  # type: ignore[arg-type]
    check_host_memory(int(3.1 * GB), Gpu())  # type: ignore[arg-type]  # large-v3 in float16


class T4:
    """As much of a card as planning asks for."""

    is_host, name, capability = False, "cuda:0", (7, 5)

    def title(self) -> str:
        return "Tesla T4"

    def capacity_bytes(self) -> int:
        return catalog.card("t4").usable_bytes

    free_bytes = capacity_bytes

    def native_dtypes(self) -> tuple[str, ...]:
        return catalog.card("t4").native_dtypes

    def check_dtype(self, dtype: str) -> None:
        assert dtype in self.native_dtypes()


def test_voxtral_is_not_staged_on_a_host_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"preset": "colab-t4", "device": "cuda"}
    part: Any = SimpleNamespace(inputs={}, earlier={})
    session = Session(BesideParams.from_mapping(values), T4(), part, None)  # type: ignore[arg-type]
    direct = session.case("loading", requests=())
    staged = session.case("loading", requests=(), llm=replace(direct.llm, load_path="staged"))
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: HOST_BYTES - HOST_BASE_BYTES)
    assert co_residency.skip_reason(session, direct) == ""
    assert "load_paths: [direct]" in co_residency.skip_reason(session, staged)
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: 64 * GB)
    assert co_residency.skip_reason(session, staged) == ""


# ------------------------------------------------------------------------- Run all, simulated

PIP = "import os, sys; open(os.environ['PIP_LOG'], 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
NVML = """
class NVMLError(Exception): ...
def nvmlInit(): ...
def nvmlDeviceGetCount(): return 1
"""


@pytest.fixture
def machine(tmp_path: Path, project: Path) -> dict[str, str]:
    """The environment of a Colab machine with a GPU and both released models in the hub's cache."""
    site, hub = tmp_path / "site", tmp_path / "hub"
    for name, text in {
        "google/colab/__init__.py": "",
        "pip/__init__.py": "",
        "pip/__main__.py": PIP,
        "pynvml.py": NVML,
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    put(hub, catalog.voxtral("mini-3b").hub_id, pocket_dir("pocket"))
    spec = ModelSpec(model="pocket-m", backend="transformers", weights="pocket", dtype="float32")
    whisper = WhisperTransformers(spec, CpuDevice())
    whisper.load()
    whisper.save(tmp_path / "files")
    put(hub, catalog.whisper("small").hub_id, tmp_path / "files")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDLAB")}
    return {
        **kept,
        "COLAB_RELEASE_TAG": "release-colab",
        "PYTHONPATH": f"{site}{os.pathsep}{project}",
        "PIP_LOG": str(tmp_path / "pip.log"),
        "HF_HUB_CACHE": str(hub),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system, as a mounted Drive is."""
    folder = Path("/dev/shm") / f"hybridlab-{tmp_path.name}-{os.getpid()}"
    if not folder.parent.is_dir() or folder.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def said(book: Any) -> str:
    """Everything that the cells printed."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


#: What a Colab with a T4 has and this machine has not.
LACKING = {
    "device": "cpu",
    "llm_dtype": "float32",
    "asr_dtype": "float32",
    # what stands in for a released Whisper never learned timestamps
    "asr_decoding": "plain",
}


@pytest.mark.slow
def test_start_fetches_the_notebooks_and_runs_them_from_there(
    project: Path, tmp_path: Path, machine: dict[str, str]
) -> None:
    """In an empty folder, as a badge opens it; `git clone` copies what it would fetch."""
    from nbclient import NotebookClient

    git, content = tmp_path / "bin" / "git", tmp_path / "content"
    for folder in (git.parent, content):
        folder.mkdir()
    copies = " ".join(f"{project}/{name}" for name in ("notebooks", "params", "pyproject.toml"))
    git.write_text(f'#!/bin/sh\n[ "$1" = clone ] && mkdir hybridlab && cp -r {copies} hybridlab\n')
    git.chmod(0o755)
    book = nbformat.read(project / "notebooks" / "start.ipynb", as_version=4)
    for cell in book.cells:
        cell.source = cell.source.replace("overrides = {}", f"overrides = {LACKING!r}")
        cell.source = cell.source.replace('notebooks = "auto"', 'notebooks = ["00"]')
    resources = {"metadata": {"path": str(content)}}
    client = NotebookClient(book, timeout=300, kernel_name="python3", resources=resources)
    client.execute(env={**machine, "PATH": f"{git.parent}{os.pathsep}{machine['PATH']}"})
    assert "install --quiet ." in (tmp_path / "pip.log").read_text()
    (run,) = (content / "hybridlab" / "outputs").iterdir()
    assert run.name.startswith("start-")
    manifest = read_manifest(run)
    assert (manifest["preset"], manifest["status"]) == ("colab-t4", "completed")
    assert list(manifest["notebooks"]) == ["00_setup"]
    assert read_manifest(run / "parts" / "00_setup")["params"]["llm_weights"] == "hub"


@pytest.mark.slow
def test_run_all_with_released_names_on_a_simulated_colab(
    project: Path, tmp_path: Path, machine: dict[str, str], drive: Path
) -> None:
    """What the badge opens, with no cell's tags and nothing typed but what this machine lacks: a
    GPU, and a processor that computes in float16. The run folder lies on another file system."""
    from nbclient import NotebookClient

    book = nbformat.read(project / "notebooks" / "00_setup.ipynb", as_version=4)
    lacking = LACKING | {"output_dir": str(drive)}
    for cell in book.cells:
        cell.metadata.pop("tags", None)
        cell.source = cell.source.replace("overrides = {}", f"overrides = {lacking!r}")
    client = NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=machine)
    assert "install --quiet hybridlab @ git+https" in (tmp_path / "pip.log").read_text()
    assert "preset colab-t4 fills what was left at its default: mini-3b (hub)" in said(book)
    part = read_manifest(drive / "parts" / "00_setup")
    assert part["status"] == "completed"
    assert part["params"]["llm_weights"] == part["params"]["asr_weights"] == "hub"
    assert part["params"]["device"] == "cpu"
