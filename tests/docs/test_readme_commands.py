"""Every command that README prints is executed from a fresh clone: as it stands where that is
cheap, else in a form whose difference is said beside it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, distributions
from pathlib import Path

import httpx
import pytest

from hybridlab.audio import load_clips
from hybridlab.models.pocket import pocket_dir
from tests.audio.encoding import by_av
from tests.docs.pages import PROJECT, command_lines

pytestmark = pytest.mark.slow

README = PROJECT / "README.md"
#: Lines that are run as they stand, and a part of what each prints.
AS_THEY_STAND = {
    "hybridlab doctor": "checks found something missing.",
    "hybridlab plan --card t4": "On NVIDIA T4: large-v3 (transformers, float16)",
    "hybridlab plan --card t4 --card l4 --audio-s 600": "On NVIDIA L4: large-v3",
    "hybridlab fit large-v3": "longest audio",
}
#: The others, and what of each is not run, or how it is changed. Each has a test below.
IN_ANOTHER_FORM: dict[str, str] = {}
#: Names of commands in the prose.
NAMES = {"hybridlab fit"}
#: Seconds until a server answers.
START_S = 120.0
TOKEN = "of-this-test"

Test = Callable[..., None]


def runs(line: str, but: str) -> Callable[[Test], Test]:
    """The test that runs this line, and what is different."""
    IN_ANOTHER_FORM[line] = but
    return lambda test: test


def sh(line: str, folder: Path, environment: dict[str, str]) -> str:
    """What a line of the shell prints; it must end well."""
    ended = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@contextmanager
def at_work(line: str, folder: Path, environment: dict[str, str], url: str) -> Iterator[None]:
    """A server that a line of the shell starts, once it answers; afterwards it is asked to end."""
    log = folder / "server.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_S
        while not answers(url):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where README's first line leads, from this checkout's last commit."""
    if not (PROJECT / ".git").exists():
        pytest.skip("this is no git checkout, of which there could be a clone")
    (line,) = (line for line in command_lines(README) if line.startswith("git clone"))
    url = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert url in line
    here = {"KEY_0": f"url.{PROJECT.as_uri()}/.git.insteadOf", "VALUE_0": url, "COUNT": "1"}
    environment = os.environ | {f"GIT_CONFIG_{name}": value for name, value in here.items()}
    folder = tmp_path_factory.mktemp("reader")
    return Path(sh(f"{line} && pwd", folder, environment).strip())


@pytest.fixture(scope="module")
def environment(clone: Path) -> dict[str, str]:
    """This environment's packages and commands over the clone's code."""
    own = {"MAKEFLAGS", "COLUMNS", "HYBRIDLAB_CASE_SERVER"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(clone), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def meeting(clone: Path) -> Path:
    """The reader's `meeting.m4a`: a shipped clip, as a phone would write it."""
    clip = min(load_clips(), key=lambda clip: clip.audio_s)
    samples = clip.samples().repeat(3)
    (clone / "meeting.m4a").write_bytes(by_av(samples, "ipod", "aac", rate=48_000))
    return clone / "meeting.m4a"


def test_readme_prints_no_command_that_is_not_here() -> None:
    known = {*AS_THEY_STAND, *IN_ANOTHER_FORM, *NAMES}
    printed = set(command_lines(README))
    assert sorted(printed - known) == [], "write a row or a test that runs it"
    assert sorted(known - printed) == [], "README prints it no more; take it out"


@pytest.mark.parametrize("line", AS_THEY_STAND)
def test_a_line_runs_as_it_stands(line: str, clone: Path, environment: dict[str, str]) -> None:
    said = " ".join(sh(line, clone, environment).split())
    assert AS_THEY_STAND[line] in said


@runs(
    "git clone https://github.com/hybridlab/hybridlab && cd hybridlab",
    but="git takes this checkout for the address, which needs a network",
)
def test_a_clone_is_the_last_commit_and_its_code_is_what_runs(
    clone: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    heads = {sh("git rev-parse HEAD", folder, environment) for folder in (PROJECT, clone)}
    assert len(heads) == 1
    where = sh("python -c 'import hybridlab; print(hybridlab.__file__)'", tmp_path, environment)
    assert Path(where.strip()) == clone / "hybridlab" / "__init__.py"


@runs("make demo", but="takes minutes: .ci/run runs it; tests/test_makefile.py has its exit codes")
@runs("make test", but="is what runs this test: .ci/run runs it")
def test_what_takes_minutes_is_run_by_the_projects_own_check(clone: Path) -> None:
    lines = (clone / ".ci" / "run").read_text().splitlines()
    assert {"make demo", "make test"} <= set(lines) and "set -euo pipefail" in lines


@runs(
    "UV_TORCH_BACKEND=cpu make demo",
    but="needs PyTorch's own index: here that what the Makefile calls knows the variable",
)
def test_the_installer_of_the_makefile_knows_pytorchs_cpu_build(
    clone: Path, environment: dict[str, str]
) -> None:
    assert "-m uv pip install" in (clone / "Makefile").read_text()
    said = sh("python -m uv help pip install", clone, environment)
    assert "UV_TORCH_BACKEND" in said and "cpu:" in said.lower()


@runs(". .venv/bin/activate", but="the environment is as make makes it, without packages in it")
def test_the_environment_that_make_makes_is_entered(
    clone: Path, environment: dict[str, str]
) -> None:
    sh(f"make .venv/bin/python PYTHON={sys.executable}", clone, environment)
    said = sh(". .venv/bin/activate && command -v python pip", clone, environment)
    assert said.split() == [str(clone / ".venv/bin/python"), str(clone / ".venv/bin/pip")]


@runs("make lab", but="over this environment's packages, and without a window of a browser")
def test_jupyterlab_opens_on_the_first_notebook(
    clone: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "venv" / ".base").touch()  # newer than the clone: nothing is installed
    port = free_port()
    config = {"open_browser": False, "port": port, "allow_root": True}
    given = {"ServerApp": config, "IdentityProvider": {"token": TOKEN}}
    (tmp_path / "jupyter_server_config.json").write_text(json.dumps(given))
    environment = environment | {"JUPYTER_CONFIG_DIR": str(tmp_path)}
    url, key = f"http://127.0.0.1:{port}", {"token": TOKEN}
    line = f"exec make lab VENV={tmp_path / 'venv'}"
    with at_work(line, clone, environment, f"{url}/api?token={TOKEN}"):
        opened = httpx.get(url, params=key)
        assert opened.headers["location"].startswith("/lab/tree/notebooks/start.ipynb")
        found = httpx.get(f"{url}/api/contents/notebooks/start.ipynb", params=key)
        assert found.json()["type"] == "notebook"


@runs(
    "papermill notebooks/04_sequential.ipynb outputs/04.ipynb -f params/pocket.yaml",
    but="one round of one trial, for time",
)
def test_papermill_runs_a_notebook_by_itself(clone: Path, environment: dict[str, str]) -> None:
    line = "papermill notebooks/04_sequential.ipynb outputs/04.ipynb -f params/pocket.yaml"
    sh(f"{line} -p rounds 1 -p trials 1 -p max_other_cpu_share 1", clone, environment)
    assert "Report: <a href=" in (clone / "outputs" / "04.ipynb").read_text(encoding="utf-8")


@runs(
    "hybridlab run pocket --only 04,06 -p trials 12 --output outputs/mine",
    but="notebook 00 for 04 and 06, and on a busy machine too",
)
def test_a_run_ends_with_its_report(clone: Path, environment: dict[str, str]) -> None:
    line = "hybridlab run pocket --only 00 -p trials 12 --output outputs/mine"
    said = sh(f"{line} -p max_other_cpu_share 1", clone, environment)
    assert "report: outputs/mine/index.html" in said and "answer: On a T4 Whisper large-v3" in said
    assert (clone / "outputs" / "mine" / "index.html").is_file()


@runs(
    "hybridlab try meeting.m4a", but="the pocket Whisper as a folder: the released needs a network"
)
def test_own_audio_through_every_backend(
    clone: Path, environment: dict[str, str], meeting: Path, tmp_path: Path
) -> None:
    weights = shutil.copytree(pocket_dir("pocket-m"), tmp_path / "weights")
    line = f"hybridlab try {meeting.name} --model pocket-m --weights {weights}"
    assert "RTFx" in sh(line, clone, environment)


@runs(
    "hybridlab run own-audio --only 00,02,04 -p audio=recordings/",
    but="notebook 00 alone, with the pocket Whisper: the released needs a network",
)
def test_own_audio_through_a_notebook(
    clone: Path, environment: dict[str, str], meeting: Path
) -> None:
    (clone / "recordings").mkdir()
    shutil.copy(meeting, clone / "recordings")
    line = "hybridlab run own-audio --only 00 -p audio=recordings/ --output outputs/own"
    pocket = "-p asr_model=pocket-m -p asr_weights=pocket -p max_other_cpu_share=1"
    said = sh(f"{line} {pocket}", clone, environment)
    assert "report: outputs/own/index.html" in said
    assert "meeting" in (clone / "outputs/own/notebooks/00_setup.html").read_text()


@pytest.fixture(scope="module")
def installed(
    clone: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `pip install '.[serve]'` makes of the clone, by itself."""
    site = tmp_path_factory.mktemp("site")
    own = "--no-deps --no-index --no-build-isolation --quiet"
    sh(f"pip install {own} --target {site} '.[serve]'", clone, environment)
    return site


@runs("pip install '.[serve]'", but="without what it needs, which is this environment's")
def test_the_installed_package_brings_what_a_server_needs(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (made,) = distributions(name="hybridlab", path=[str(installed)])
    of_serve = {line.split(";")[0] for line in made.requires or [] if "serve" in line}
    assert len(of_serve) == 5
    for requirement in of_serve:
        assert Distribution.from_name(requirement.partition(">")[0])
    outside = environment | {"PYTHONPATH": str(installed)}
    where = sh("python -c 'import hybridlab; print(hybridlab.__file__)'", tmp_path, outside)
    assert Path(where.strip()).parent == installed / "hybridlab"


@runs(
    "hybridlab serve --llm-model mini-3b",
    but="the pocket pair for mini-3b, which takes a GPU; installed, and outside the clone",
)
@runs(
    "curl localhost:8000/v1/audio/transcriptions -F file=@meeting.m4a -F model=whisper-1",
    but="another port",
)
@runs(
    'curl -N localhost:8000/v1/hybrid -F file=@meeting.m4a -F question="What is said?" '
    "-F stream=true",
    but="another port",
)
def test_the_server_answers_what_curl_asks(
    installed: Path, environment: dict[str, str], meeting: Path, tmp_path: Path
) -> None:
    shutil.copy(meeting, tmp_path)
    outside = environment | {"PYTHONPATH": str(installed)}
    port = free_port()
    line = f"exec hybridlab serve --llm-model pocket --port {port}"
    asked = [line for line in command_lines(README) if line.startswith("curl")]
    with at_work(line, tmp_path, outside, f"http://127.0.0.1:{port}/health"):
        curl = [line.replace("curl", "curl -sS").replace("8000", str(port)) for line in asked]
        transcript, answer = (sh(line, tmp_path, outside) for line in curl)
    assert json.loads(transcript)["text"].strip()
    assert answer.startswith("event: transcript\ndata: {") and "\nevent: done\n" in answer
