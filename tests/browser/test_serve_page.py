"""The server's page in a real browser: a file, the microphone, the ledger, the token."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from hybridlab import catalog
from hybridlab.audio import load_clips
from tests.serve.test_server import Running, started

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CLIPS = {clip.id: clip for clip in load_clips()}
FIRST = CLIPS["clip-01"]
SHORTEST = min(CLIPS.values(), key=lambda clip: clip.audio_s)
TOKEN = "a-token-of-this-test"
PHONE = {"width": 360, "height": 740}
WAIT_MS = 20_000
#: When a text appeared, by the part of the page that it is in.
NOTE_TIMES = """() => {
  window.seen = {};
  for (const id of ['transcript', 'answers'])
    new MutationObserver(() => {
      if (document.querySelector(`#${id} .said`)) window.seen[id] ??= performance.now();
    }).observe(document.getElementById(id), { childList: true });
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """One that wants a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRIDLAB_TOKEN", TOKEN)
        with started() as running:
            yield running


def opened(page: Any, server: Running, token: str = TOKEN) -> None:
    page.set_default_timeout(WAIT_MS)
    page.goto(server.url)
    page.wait_for_selector("text=This server wants a bearer token.")
    page.errors.clear()  # the browser calls a 401 an error; from here on there is none
    page.fill("#token", token)
    page.press("#token", "Tab")


def test_a_file_is_transcribed_and_then_answered(
    page: Any,
    server: Running,
    serious_violations: Callable[[Any], list[str]],
    screenshot: Callable[[Any, str], Path],
) -> None:
    opened(page, server)
    page.wait_for_selector("text=This server has voxtral-pocket and whisper-pocket-m.")
    page.evaluate(NOTE_TIMES)
    asked = FIRST.questions[:2]
    page.set_input_files("#file", str(FIRST.path))
    page.fill("#question", "\n".join(question.text for question in asked))
    page.press("#question", "Tab")
    page.focus("#send")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Done.")
    assert page.inner_text("#transcript .said") == FIRST.text
    assert page.locator("#answers .said").all_inner_texts() == [q.answer for q in asked]
    seen = page.evaluate("window.seen")
    assert seen["transcript"] < seen["answers"]
    assert re.search(r"after \d+\.\d\d s for 7\.8 s of sound", page.inner_text("#transcript"))
    _ledger_is_live(page)
    assert serious_violations(page) == []
    screenshot(page, "serve-page")
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.emulate_media(color_scheme="dark")
    assert serious_violations(page) == []
    screenshot(page, "serve-page-phone-dark")
    assert page.errors == []
    assert {url for url in page.fetched if not url.startswith(server.url)} == set()


def _ledger_is_live(page: Any) -> None:
    """Every owner has a piece of the bar as wide as its bytes; it is read again each second."""
    widths = page.eval_on_selector_all(
        "#bar > span",
        "pieces => pieces.map(p => [p.dataset.owner, p.getBoundingClientRect().width])",
    )
    assert {"voxtral weights", "whisper weights", "server", "others"} <= {
        name for name, _ in widths
    }
    assert sum(width for _, width in widths) <= page.locator("#bar").bounding_box()["width"]
    told = page.get_attribute("#bar", "aria-label")
    assert re.search(r"whisper weights \d+ MiB, .*free [\d.]+ GiB, of [\d.]+ GiB", told)
    with page.expect_response(lambda r: r.url.endswith("/metrics"), timeout=3000) as response:
        pass
    assert response.value.status == 200


def test_what_is_wrong_is_one_line(page: Any, server: Running, tmp_path: Path) -> None:
    opened(page, server, token="wrong")
    error = page.locator("#error")
    page.wait_for_selector("text=The bearer token is missing or wrong.")
    page.fill("#token", TOKEN)
    page.press("#token", "Tab")
    error.wait_for(state="hidden")
    page.click("#send")
    assert error.inner_text() == "Choose a file or record something first."
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound")
    page.set_input_files("#file", str(broken))
    page.click("#send")
    page.wait_for_selector("#error:has-text('decoded')")
    assert "\n" not in error.inner_text()
    assert (
        page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0
    )


@pytest.fixture
def with_microphone(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """A page whose microphone hears a clip once: chromium's own fake device."""
    spoken = tmp_path / "spoken.wav"
    soundfile.write(spoken, SHORTEST.samples(), catalog.SAMPLE_RATE_HZ)
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags.append(f"--use-file-for-fake-audio-capture={spoken}%noloop")
    kind = chromium.browser_type
    browser = kind.launch(executable_path=shutil.which("chromium"), args=flags)
    page = browser.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    browser.close()


def test_what_the_microphone_hears_is_transcribed(with_microphone: Any, server: Running) -> None:
    page = with_microphone
    opened(page, server)
    page.wait_for_selector("text=This server has")
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_timeout(1000 * SHORTEST.audio_s)
    page.click("text=Stop recording")
    page.wait_for_selector("#player:not([hidden])")
    page.click("#send")
    page.wait_for_selector("#transcript .said")
    assert page.inner_text("#transcript .said") == SHORTEST.text
    assert page.errors == []
