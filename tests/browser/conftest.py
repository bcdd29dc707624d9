"""A real browser, and JupyterLab's page in it. Without a browser the tests skip, saying so."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: Seconds for JupyterLab to answer, and for one notebook to run through.
START_S = 90.0
RUN_S = 180.0
SCREENSHOTS = Path(__file__).resolve().parents[2] / "outputs" / "screenshots"


@pytest.fixture(scope="package")  # while playwright is open this thread has an event loop at work
def chromium() -> Iterator[Any]:
    """Debian's chromium, headless."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no browser here; install one with: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A fresh page; `page.errors` has what its console called an error, `page.fetched` whatever
    it asked of a network."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    made = context.new_page()
    made.errors, made.fetched = [], []
    made.on("console", lambda m: made.errors.append(m.text) if m.type == "error" else None)
    made.on("pageerror", lambda error: made.errors.append(str(error)))
    made.on(
        "request",
        lambda r: (
            None if r.url.startswith(("file:", "data:", "blob:")) else made.fetched.append(r.url)
        ),
    )
    yield made
    context.close()


@pytest.fixture
def serious_violations() -> Callable[..., list[str]]:
    """What axe-core calls serious or critical in a page, or whatever it finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")

    def find(page: Any, *, whatever: bool = False) -> list[str]:
        results = axe.Axe().run(page).response["violations"]
        return [
            f"{found['id']}: {found['help']} ({found['nodes'][0]['html'][:120]})"
            for found in results
            if whatever or found["impact"] in ("serious", "critical")
        ]

    return find


@pytest.fixture
def screenshot() -> Callable[[Any, str], Path]:
    """Keep what a page looks like under outputs/screenshots."""

    def keep(page: Any, name: str) -> Path:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        page.screenshot(path=str(path), full_page=True)
        return path

    return keep


# ------------------------------------------------------------------------------------ JupyterLab


@dataclass(frozen=True)
class JupyterLab:
    """A server over a folder of notebooks that the tests may change."""

    address: str
    token: str
    folder: Path

    def open(self, page: Any, notebook: str) -> None:
        """The notebook in the page, its kernel ready."""
        page.goto(
            f"{self.address}/lab/tree/{notebook}.ipynb?reset&token={self.token}", timeout=120_000
        )
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
        page.wait_for_function(_READY, timeout=120_000, polling=200)

    def run_all(self, page: Any) -> None:
        """What the menu's "Run All Cells" does; `wait` waits for the end."""
        page.click(".jp-Notebook .jp-Cell >> nth=0")  # the command acts on what has the focus
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def wait(self, page: Any, *, seconds: float = RUN_S) -> None:
        """Until no cell is at work or waiting."""
        page.wait_for_function(_FINISHED, timeout=seconds * 1000, polling=500)

    def errors(self, page: Any) -> list[str]:
        """What cells of the open notebook have failed with, in view or not."""
        return list(page.evaluate(_ERRORS))


#: Before the kernel is connected, JupyterLab calls it idle and runs nothing.
_READY = """() => {
  const kernel = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
#: From the notebook's model: JupyterLab renders only the cells in view.
_ERRORS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
  .flatMap(cell => cell.toJSON().outputs ?? [])
  .filter(output => output.output_type === 'error')
  .map(output => `${output.ename}: ${output.evalue}`)"""
_FINISHED = """() => {
  const prompts = [...document.querySelectorAll('.jp-InputPrompt')].map(e => e.textContent);
  const status = document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status;
  const started = prompts.some(t => /\\d/.test(t));
  return status === 'idle' && started && !prompts.some(t => t.includes('*'));
}"""


@pytest.fixture(scope="package")
def jupyterlab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    """JupyterLab on the loopback over a copy of the notebooks. Its kernels write their runs into
    that copy."""
    root = tmp_path_factory.mktemp("jupyterlab")
    project = Path(__file__).resolve().parents[2]
    shutil.copytree(project / "notebooks", root / "notebooks")
    with _served(root / "notebooks") as served:
        yield served


@contextmanager
def _served(folder: Path) -> Iterator[JupyterLab]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    options = [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None",
        "--LabApp.expose_app_in_browser=True",  # its commands, by name
    ]
    log = folder.parent / "jupyterlab.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, *options],
            cwd=folder.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "JUPYTER_CONFIG_DIR": str(folder.parent / "config")},
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_S
        while not _answers(f"{address}/api?token={token}"):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield JupyterLab(address, token, folder)
    finally:
        server.terminate()
        server.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status) == 200
    except OSError:
        return False
