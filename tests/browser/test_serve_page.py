"""The server's page in a real browser: files of each kind, chosen or dropped, the microphone,
answers that grow and are cancelled, the ledger, the token."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks.endurance.server import Running, started
from hybridlab import catalog
from hybridlab.audio import Clip, load_clips
from hybridlab.server.settings import TOKEN_VARIABLE, Settings
from tests.server.in_process import LONG, Served, in_process
from tests.workers_at_work import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CLIPS = {clip.id: clip for clip in load_clips()}
FIRST = CLIPS["clip-01"]
SHORTEST = min(CLIPS.values(), key=lambda clip: clip.audio_s)
#: Of silence before what a microphone hears.
LEAD_S = 1.0
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
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # the other servers of these tests want none
            patch.setenv(TOKEN_VARIABLE, TOKEN)
            running = stack.enter_context(started())
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
    assert page.inner_text("#limits").lower() == f"{catalog.POCKET_WORDS}.".lower()
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
    assert {"llm weights", "asr weights", "server", "others"} <= {name for name, _ in widths}
    assert sum(width for _, width in widths) <= page.locator("#bar").bounding_box()["width"]
    told = page.get_attribute("#bar", "aria-label")
    assert re.search(r"asr weights \d+ MiB, .*free [\d.]+ GiB, of [\d.]+ GiB", told)
    with page.expect_response(lambda r: r.url.endswith("/metrics"), timeout=3000) as response:
        pass
    assert response.value.status == 200


@pytest.fixture
def pausing(case_server: object) -> Iterator[Served]:
    """One without a token, whose Voxtral can be told to wait in the middle of an answer."""
    with in_process(Settings(device="cpu")) as running:
        yield running


def test_an_answer_grows_and_can_be_cancelled(
    page: Any,
    pausing: Served,
    tmp_path: Path,
    serious_violations: Callable[[Any], list[str]],
    screenshot: Callable[[Any, str], Path],
) -> None:
    """First cancelled with two words out, then asked again and heard to the end."""
    page.set_default_timeout(WAIT_MS)
    page.goto(pausing.url)
    page.wait_for_selector("text=This server has voxtral-pocket and whisper-pocket-m.")
    page.set_input_files("#file", str(FIRST.path))
    page.fill("#question", f"{LONG}\n{FIRST.questions[0].text}")
    go = tmp_path / "go"
    pausing.pause(go)
    page.click("#send")
    growing = "#answers [data-index='0'][aria-busy] .said:not(:empty)"
    page.wait_for_selector(growing)
    assert page.inner_text("#transcript .said") == FIRST.text
    assert page.inner_text("#state") == "Waiting for 2 answers."
    begun = page.inner_text(growing)
    jobs = pausing.scheduler.at_work
    assert [job.pending for job in jobs] == [True, True]
    assert serious_violations(page) == []
    screenshot(page, "serve-page-growing")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert serious_violations(page) == []
    screenshot(page, "serve-page-growing-phone-dark")
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled.")
    assert page.inner_text("#answers [data-index='0']").endswith("not finished")
    assert page.locator("[aria-busy]").count() == 0
    assert wait_until(lambda: not any(job.pending for job in jobs))
    assert all(job.future.cancelled() for job in jobs)
    go.touch()
    page.click("#send")
    page.wait_for_selector("text=Done.")
    whole = page.locator("#answers .said").all_inner_texts()
    assert whole[0].startswith(begun)
    assert whole[1] == FIRST.questions[0].answer
    assert page.errors == []


#: A file of these bytes, dropped the way a file manager does it.
DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  const drop = document.getElementById("drop");
  const seen = [];
  for (const kind of ["dragover", "dragleave", "dragover", "drop"]) {
    drop.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
    seen.push(drop.classList.contains("over"));
  }
  return seen;
}"""


#: Keep what is uploaded: the browser's own record of a request leaves files out.
KEEP_UPLOADS = """() => {
  const original = window.fetch;
  window.fetch = async (path, options) => {
    const file = options?.body?.get?.("file");
    if (file) window.uploaded = [...new Uint8Array(await file.arrayBuffer())];
    return original(path, options);
  };
}"""


def dropped_and_sent(page: Any, name: str, data: bytes) -> bytes:
    """The file that the page then uploads; the transcript is there."""
    page.evaluate(KEEP_UPLOADS)
    seen = page.evaluate(DROP, [name, base64.b64encode(data).decode()])
    assert seen == [True, False, True, False]
    assert page.inner_text("#recorded") == name
    assert page.is_visible("#player")
    page.click("#send")
    page.wait_for_selector("text=Done.")
    return bytes(page.evaluate("window.uploaded"))


def test_a_dropped_file_is_sent_as_it_is(page: Any, server: Running) -> None:
    opened(page, server)
    page.wait_for_selector("text=This server has")
    data = FIRST.path.read_bytes()
    assert dropped_and_sent(page, FIRST.path.name, data) == data
    assert page.inner_text("#transcript .said") == FIRST.text
    assert page.errors == []


def compressed(clip: Clip, container: str, codec: str, rate_hz: int) -> bytes:
    """The clip as a recorder or a phone stores it."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout="mono")
        resampler = av.AudioResampler(stream.format, "mono", rate_hz, stream.frame_size)
        frame = av.AudioFrame.from_ndarray(clip.samples()[None], format="flt", layout="mono")
        frame.sample_rate = catalog.SAMPLE_RATE_HZ
        for part in (frame, None):
            for ready in resampler.resample(part):
                output.mux(stream.encode(ready))
        output.mux(stream.encode(None))
    return file.getvalue()


def test_a_phone_s_memo_is_sent_as_it_is(page: Any, server: Running) -> None:
    data = compressed(FIRST, "mp4", "aac", 44_100)
    opened(page, server)
    page.wait_for_selector("text=This server has")
    assert dropped_and_sent(page, "memo.m4a", data) == data
    assert page.inner_text("#transcript .said") == FIRST.text
    assert page.errors == []


def test_of_what_may_be_a_film_the_sound_is_sent(page: Any, server: Running) -> None:
    data = compressed(FIRST, "webm", "libopus", 48_000)
    opened(page, server)
    page.wait_for_selector("text=This server has")
    info = soundfile.info(io.BytesIO(dropped_and_sent(page, "speech.webm", data)))
    assert (info.samplerate, info.channels, info.subtype) == (catalog.SAMPLE_RATE_HZ, 1, "PCM_16")
    assert info.duration == pytest.approx(FIRST.audio_s, abs=0.15)  # codecs add a frame or two
    assert page.inner_text("#transcript .said") == FIRST.text
    assert page.errors == []


def test_what_the_browser_does_not_know_is_left_to_the_server(page: Any, server: Running) -> None:
    data = compressed(FIRST, "avi", "ac3", 48_000)
    opened(page, server)
    page.wait_for_selector("text=This server has")
    assert dropped_and_sent(page, "old.avi", data) == data
    assert page.inner_text("#transcript .said") == FIRST.text
    assert page.errors == []


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
    """A page whose microphone hears a clip once, after the silence in which the page begins to
    record: chromium's own fake device."""
    spoken = tmp_path / "spoken.wav"
    silence = np.zeros(round(LEAD_S * catalog.SAMPLE_RATE_HZ), np.float32)
    soundfile.write(spoken, np.concatenate([silence, SHORTEST.samples()]), catalog.SAMPLE_RATE_HZ)
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
    page.wait_for_timeout(1000 * (LEAD_S + SHORTEST.audio_s))
    page.click("text=Stop recording")
    page.wait_for_selector("#player:not([hidden])")
    page.click("#send")
    page.wait_for_selector("#transcript .said")
    assert page.inner_text("#transcript .said") == SHORTEST.text
    assert page.errors == []
