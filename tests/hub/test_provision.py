"""From specs to checkpoints on this machine: the right files, once, whole, and at one commit."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.errors import WeightsError
from hybridlab.models import make_asr, make_llm
from hybridlab.models.base import ModelSpec
from hybridlab.models.fetch_progress import FetchProgress
from hybridlab.models.provision import check_room, fetch, inspect
from hybridlab.models.source import revision, weight_files
from tests.hub import repositories as r
from tests.hub.server import Fault, Hub

pytestmark = pytest.mark.usefixtures("machine")


def hub_spec(model: str = "tiny", backend: str = "transformers", **fields: str) -> ModelSpec:
    values = {"weights": "hub", "dtype": "float32", "asr_decoding": "plain", **fields}
    return ModelSpec(model=model, backend=backend, **values)  # type: ignore[arg-type]


WHISPER, VOXTRAL = hub_spec(), hub_spec("mini-3b")


def blobs(cache: Path, repository: str) -> list[Path]:
    return sorted((cache / f"models--{repository.replace('/', '--')}" / "blobs").iterdir())


# ------------------------------------------------------------------------------ which files


@pytest.mark.parametrize(
    ("spec", "files"),
    [
        (WHISPER, {*r.WHISPER_CONFIGS, "model.safetensors"}),
        (hub_spec("large-v3"), {*r.WHISPER_CONFIGS, "model.safetensors"}),
        (
            VOXTRAL,
            {
                *(*r.VOXTRAL_CONFIGS, "tekken.json", "model.safetensors.index.json"),
                *(f"model-0000{number}-of-00002.safetensors" for number in (1, 2)),
            },
        ),
        (
            hub_spec(backend="faster-whisper"),
            {"config.json", "model.bin", "tokenizer.json", "vocabulary.txt"},
        ),
    ],
    ids=lambda value: f"{value.model}-{value.backend}" if isinstance(value, ModelSpec) else "",
)
def test_exactly_the_files_that_are_loaded_come(spec: ModelSpec, files: set[str], hub: Hub) -> None:
    if spec.backend == "faster-whisper":
        pytest.importorskip("faster_whisper", reason="the extra ct2 is not installed")
    (before,) = inspect([spec])
    assert set(before.missing) == files
    (checkpoint,) = fetch([spec])
    assert set(checkpoint.files) == set(hub.bodies()) == files
    assert before.missing_bytes == checkpoint.n_bytes
    hub.requests.clear()
    assert fetch([spec]) == [checkpoint]
    assert hub.requests == []  # all is here: nobody is asked


def test_a_download_tells_how_far_it_is() -> None:
    told: list[FetchProgress] = []
    checkpoints = fetch([WHISPER, VOXTRAL, WHISPER], listener=told.append)
    total = sum(one.n_bytes for one in checkpoints)
    assert len(checkpoints) == 2
    assert [state.done_bytes for state in told] == sorted(state.done_bytes for state in told)
    assert {state.total_bytes for state in told} == {total}
    assert told[-1].done_bytes == total
    assert told[0].words().startswith(f"fetching {r.WHISPER}: ")
    assert told[-1].source == r.VOXTRAL and told[-1].words().startswith("fetched ")


def test_only_what_is_lacking_is_fetched_again(hub: Hub) -> None:
    (checkpoint,) = fetch([WHISPER])
    lost = checkpoint.folder / "model.safetensors"
    lost.unlink()
    (checkpoint.folder / "config.json").unlink()
    (one,) = inspect([WHISPER])
    assert set(one.missing) == {"model.safetensors", "config.json"}
    fetch([WHISPER])
    assert lost.is_file()


# ---------------------------------------------------------------------------- loads ask nobody


def test_a_load_reads_the_snapshot_and_asks_nobody(hub: Hub) -> None:
    fetch([WHISPER, VOXTRAL])
    hub.requests.clear()
    hub.faults.append(Fault(".", delay_s=0.2))  # whatever is asked takes time
    began = time.perf_counter()
    whisper, voxtral = make_asr(WHISPER, CpuDevice()), make_llm(VOXTRAL, CpuDevice())
    whisper.load()
    voxtral.load()
    assert time.perf_counter() - began < 10
    samples = load_clips()[0].samples()
    assert whisper.transcribe([samples])[0].text
    assert voxtral.transcribe([samples])[0].text
    assert hub.requests == []


def test_faster_whisper_reads_its_snapshot_too(hub: Hub, repository_root: Path) -> None:
    pytest.importorskip("faster_whisper", reason="the extra ct2 is not installed")
    # its stand-in has 128 mel bins, as large-v3 has
    spec = hub_spec("large-v3", backend="faster-whisper")
    r.converted(repository_root / "Systran/faster-whisper-large-v3", repository_root / "saved")
    fetch([spec])
    hub.requests.clear()
    model = make_asr(spec, CpuDevice())
    model.load()
    assert model.transcribe([load_clips()[0].samples()])[0].text
    assert hub.requests == []


def test_weights_that_are_not_here_name_the_command(hub: Hub) -> None:
    with pytest.raises(WeightsError, match=r"whisper-tiny is not on .*`hybridlab fetch.*151 MB"):
        make_asr(WHISPER, CpuDevice()).load()
    assert hub.requests == []


def test_files_of_weights_are_those_that_are_loaded(hub: Hub) -> None:
    (checkpoint,) = fetch([VOXTRAL])
    # as `hf download` of the whole repository leaves it
    (checkpoint.folder / "consolidated.safetensors").write_bytes(b"of another library")
    assert [file.name for file in weight_files(VOXTRAL)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


# --------------------------------------------------------------------------------- one commit


def test_a_commit_is_kept_when_main_moves(hub: Hub) -> None:
    (first,) = fetch([WHISPER])
    hub.move(r.WHISPER)
    assert fetch([WHISPER]) == [first]  # what is here whole is not asked about
    assert revision(WHISPER) == f"commit {first.commit}"


def test_a_commit_that_is_gone_is_said(hub: Hub) -> None:
    gone = hub_spec(revision="1" * 40)
    with pytest.raises(WeightsError, match=rf"has no revision {'1' * 40} \(404\)"):
        fetch([gone])


# ------------------------------------------------------------------------- broken off, damaged


def test_a_line_that_breaks_is_taken_up_where_it_broke(hub: Hub) -> None:
    hub.faults.append(Fault("GET /cdn/.*model.safetensors", cut_after=11_000_000, times=2))
    fetch([WHISPER])
    assert hub.bodies().count("model.safetensors") == 3
    ranges = [line for line in hub.ranges if line]
    assert ranges == ["bytes=10485760-", "bytes=20971520-"]  # in blocks of 10 MiB
    assert weight_files(WHISPER)[0].resolve().name == _sha256(weight_files(WHISPER)[0])


def test_what_a_killed_download_left_is_cleared(cache: Path) -> None:
    folder = cache / f"models--{r.WHISPER.replace('/', '--')}" / "blobs"
    folder.mkdir(parents=True)
    old, young = folder / f"{'a' * 64}.12345678.incomplete", folder / f"{'b' * 64}.1.incomplete"
    for file in (old, young):
        file.write_bytes(b"half")
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    fetch([WHISPER])
    assert not old.exists()
    assert young.exists()  # somebody may be writing it


def test_what_was_left_a_moment_ago_is_cleared_as_soon_as_nobody_holds_its_lock(
    cache: Path,
) -> None:
    """Ctrl-C, and the same line again at once."""
    name = f"models--{r.WHISPER.replace('/', '--')}"
    orphan = cache / name / "blobs" / f"{'a' * 64}.12345678.incomplete"
    lock = cache / ".locks" / name / f"{'a' * 64}.lock"
    for file in (orphan, lock):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    fetch([WHISPER])
    assert not orphan.exists()


def test_one_that_somebody_writes_is_left_alone(cache: Path) -> None:
    from filelock import FileLock

    name = f"models--{r.WHISPER.replace('/', '--')}"
    orphan = cache / name / "blobs" / f"{'a' * 64}.12345678.incomplete"
    lock = cache / ".locks" / name / f"{'a' * 64}.lock"
    for file in (orphan, lock):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    os.utime(orphan, (0, 0))
    with FileLock(lock):
        fetch([WHISPER])
        assert orphan.exists()


def test_verify_fetches_a_damaged_file_again() -> None:
    (checkpoint,) = fetch([WHISPER])
    file = checkpoint.folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1  # its length and its head are right
    file.resolve().write_bytes(content)
    assert fetch([WHISPER]) == [checkpoint]
    assert fetch([WHISPER], verify=True) == [checkpoint]
    assert _sha256(file) == file.resolve().name


def test_a_file_that_was_cut_on_disk_is_fetched_again(hub: Hub) -> None:
    (checkpoint,) = fetch([WHISPER])
    file = checkpoint.folder / "model.safetensors"
    file.resolve().write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="is not on this machine yet"):
        weight_files(WHISPER)
    assert fetch([WHISPER]) == [checkpoint]
    assert _sha256(file) == file.resolve().name


# ------------------------------------------------------------------------------------- room


def test_what_does_not_fit_is_refused_before_it_comes(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridlab.models.provision.free_bytes", lambda folder: 1_000_000)
    with pytest.raises(WeightsError, match=r"take \d\d MB and the disk of .* 1 MB free.*HF_HOME"):
        fetch([WHISPER])
    assert hub.bodies() == []
    check_room([])


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
