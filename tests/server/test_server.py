"""The real server as a process of its own, on the pocket pair, and each example against it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.endurance.server import Running, started
from hybridlab.audio import Clip, load_clips
from hybridlab.models import AudioLanguageModel, SpeechRecognizer
from hybridlab.models.http_model import chat_body
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.units import MIB
from tests.workers_at_work import alive, wait_until

CLIPS = {clip.id: clip for clip in load_clips()}
SHORT = [clip for clip in CLIPS.values() if clip.audio_s < 8]
FIRST = CLIPS["clip-01"]
QUESTION = "What is said?"


def transcribe(url: str, clip: Clip, **headers: str) -> httpx.Response:
    with clip.path.open("rb") as file:
        return httpx.post(
            f"{url}/v1/audio/transcriptions",
            files={"file": file},
            data={"model": "whisper-1"},
            headers=headers,
            timeout=60,
        )


def ask(url: str, clip: Clip) -> httpx.Response:
    body = chat_body("voxtral", clip.path.read_bytes(), QUESTION, max_tokens=40)
    headers = {"Content-Type": "application/json"}
    return httpx.post(f"{url}/v1/chat/completions", content=body, headers=headers, timeout=60)


def test_it_says_once_when_it_is_ready(server: Running) -> None:
    """How long that takes is measured by benchmarks.serve."""
    ready = httpx.get(f"{server.url}/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reason": ""})
    assert len(server.found(r"serves voxtral-pocket, whisper-pocket-m, ready in ([\d.]+) s")) == 1


def test_it_tells_what_each_worker_holds(server: Running) -> None:
    text = httpx.get(f"{server.url}/metrics").text
    rows = re.findall(r'^hybridlab_model_bytes{reading="(\w+)",role="(\w+)"} (\S+)', text, re.M)
    told = {(role, reading): float(n_bytes) for reading, role, n_bytes in rows}
    for role in ("llm", "asr"):
        (weights,) = re.findall(rf'ledger_bytes{{owner="{role} weights"}} (\S+)', text)
        assert float(weights) < told[role, "used"] <= told[role, "request_peak"]
        assert told[role, "load_peak"] > float(weights)
        assert told[role, "reserved"] == 0  # malloc's, on a host


def test_the_server_itself_has_no_torch_and_its_workers_have_the_memory_settings(
    server: Running,
) -> None:
    processes = server.processes()
    assert len({processes[name] for name in ("server", "asr", "llm")}) == 3
    for name in ("server", "asr", "llm"):
        maps = Path(f"/proc/{processes[name]}/maps").read_text()
        assert ("libtorch" in maps) == (name != "server")
    for role in ("asr", "llm"):
        found = environment_of(processes[role])
        assert found["MALLOC_TRIM_THRESHOLD_"] == str(128 * MIB)
        assert found["MALLOC_MMAP_THRESHOLD_"] == str(32 * MIB)
        assert found["GOMP_SPINCOUNT"] == "20000"  # of some 20 ns each


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_segments_have_the_figures_that_openai_whisper_computes(
    server: Running, alone: tuple[SpeechRecognizer, AudioLanguageModel]
) -> None:
    from whisper import transcribe as of_openai

    ear, _ = alone
    for clip in SHORT[:3]:
        (told,) = verbose(server, clip)["segments"]
        options = {"language": "en", "temperature": 0.0, "without_timestamps": True}
        found = of_openai(ear.module(), clip.samples(), fp16=False, **options)
        (expected,) = found["segments"]
        for figure in ("avg_logprob", "no_speech_prob", "compression_ratio"):
            assert told[figure] == pytest.approx(expected[figure], abs=0.01), figure


def verbose(server: Running, clip: Clip, **fields: str) -> dict[str, Any]:
    with clip.path.open("rb") as file:
        found = httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": file},
            data={"model": "whisper-1", "response_format": "verbose_json", **fields},
            timeout=60,
        )
    body: dict[str, Any] = found.json()
    return body


def test_a_limit_of_tokens_is_of_each_window_of_the_asr_and_of_the_llm_s_whole_text(
    server: Running,
) -> None:
    long = max(CLIPS.values(), key=lambda clip: clip.audio_s)
    heard = verbose(server, long, max_tokens="3")
    assert len(heard["segments"]) > 1
    *cut, last = [len(segment["tokens"]) for segment in heard["segments"]]
    assert set(cut) == {3} and last <= 3  # the last window may hold no more
    written = verbose(server, long, model="voxtral", language="en", max_tokens="3")
    assert (written["finish_reason"], len(written["token_ids"])) == ("length", 3)


def test_the_llm_takes_the_likeliest_tokens_at_any_temperature(server: Running) -> None:
    said = [verbose(server, FIRST, model="llm", temperature=t)["text"] for t in ("0", "1")]
    assert said[0] == said[1] != ""


def test_five_beams_find_a_text_that_is_no_less_probable(
    alone: tuple[SpeechRecognizer, AudioLanguageModel],
) -> None:
    ear, _ = alone
    for clip in SHORT[:3]:
        one, five = (
            ear.transcribe([clip.samples()], TranscribeOptions(beams=beams))[0].segments[0]
            for beams in (1, 5)
        )
        assert five.avg_logprob is not None
        assert one.avg_logprob is not None
        assert five.avg_logprob >= one.avg_logprob - 1e-4
        assert five.text == clip.text


def test_the_llm_s_transcript_is_streamed_as_it_is_decoded(server: Running) -> None:
    with FIRST.path.open("rb") as file:
        found = httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": file},
            data={"model": "llm", "stream": "true"},
            timeout=60,
        )
    *deltas, done = (json.loads(part[6:]) for part in found.text.split("\n\n") if part)
    assert len(deltas) > 1
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    assert "".join(delta["delta"] for delta in deltas) == done["text"]


def test_concurrent_requests_get_the_texts_of_the_models_alone(
    server: Running, alone: tuple[SpeechRecognizer, AudioLanguageModel]
) -> None:
    ear, mind = alone
    clips = [*SHORT, CLIPS["clip-14"]]
    with ThreadPoolExecutor(2 * len(clips)) as pool:
        heard = list(pool.map(lambda clip: transcribe(server.url, clip), clips))
        answered = list(pool.map(lambda clip: ask(server.url, clip), clips))
    for clip, one, other in zip(clips, heard, answered, strict=True):
        samples = clip.samples()
        assert one.json()["text"] == ear.transcribe([samples])[0].text
        answer = other.json()["choices"][0]["message"]["content"]
        assert answer == mind.answer([samples], [QUESTION], max_new_tokens=40)[0].text
    batches = server.metric("hybridlab_batches_total", "asr")
    assert batches < server.metric("hybridlab_batched_jobs_total", "asr")


def test_a_client_hears_why_it_is_refused_whatever_it_sends(server: Running) -> None:
    """One that writes all of its body before it reads, and one that asks first."""
    upload = {"file": b"RIFF" + bytes(30 * 10**6)}
    began = time.monotonic()
    address = f"{server.url}/v1/audio/transcriptions"
    found = httpx.post(address, files=upload, data={"model": "whisper-1"}, timeout=30)
    assert (found.status_code, found.json()["error"]["code"]) == (413, "upload_too_large")
    options = ["-H", "Expect: 100-continue", "--data-binary", "@-", "-o", "-", "-w", "%{http_code}"]
    asked = subprocess.run(
        ["curl", "-sS", address, *options], input=upload["file"], capture_output=True, check=True
    )
    assert asked.stdout.endswith(b"413")
    assert time.monotonic() - began < 4  # nobody is waited for in vain
    deep = httpx.post(f"{server.url}/v1/chat/completions", content=b"[" * 100_000)
    assert (deep.status_code, deep.json()["error"]["code"]) == (400, "invalid_request")


def test_a_worker_killed_under_load_costs_no_wrong_text_and_not_the_other_worker(
    server: Running, alone: tuple[SpeechRecognizer, AudioLanguageModel]
) -> None:
    ear, _ = alone
    expected = {clip.id: ear.transcribe([clip.samples()])[0].text for clip in SHORT}
    llm = server.pid_of("llm")
    stop = threading.Event()

    def load(first: int) -> list[tuple[str, int, str]]:
        seen, index = [], first
        while not stop.is_set():
            clip = SHORT[index % len(SHORT)]
            answer = transcribe(server.url, clip)
            seen.append((clip.id, answer.status_code, answer.json().get("text", "")))
            index += 1
        return seen

    with ThreadPoolExecutor(5) as pool:
        loads = [pool.submit(load, first) for first in range(4)]
        answers = pool.submit(lambda: [ask(server.url, clip).status_code for clip in SHORT])
        time.sleep(0.5)
        os.kill(server.pid_of("asr"), signal.SIGKILL)
        try:
            assert answers.result(120) == [200] * len(SHORT)
        finally:
            stop.set()
        seen = [row for result in loads for row in result.result(60)]
    assert len(seen) > 4
    for clip_id, status, text in seen:
        assert (status, text) == (200, expected[clip_id])
    assert server.metric("hybridlab_restarts_total", "asr") == 1
    assert server.metric("hybridlab_restarts_total", "llm") == 0
    assert server.pid_of("llm") == llm
    assert alive(llm)


def test_a_decoder_that_is_killed_costs_nobody_a_request_and_is_counted(server: Running) -> None:
    os.kill(server.processes()["decoder"], signal.SIGKILL)
    answer = transcribe(server.url, SHORT[0])
    assert (answer.status_code, bool(answer.json()["text"])) == (200, True)
    assert server.metrics("hybridlab_decoder_restarts_total") == {"": 1}


@pytest.mark.slow
def test_sigterm_under_load_loses_nothing_that_was_accepted() -> None:
    """Each request gets a text or 'stopping'; a connection that comes later is refused or reset by
    the kernel; none that was accepted is cut. `--only asr` has no LLM to wait for."""
    options = ("--only", "asr", "--asr-model", "pocket-s", "--drain-s", "2")
    with started(*options) as running:
        url, pid = running.url, running.pid_of("asr")
        outcomes: list[str] = []

        def load(first: int) -> None:
            for index in range(first, first + 1000):
                try:
                    response = transcribe(url, SHORT[index % len(SHORT)], Connection="close")
                except (httpx.ConnectError, httpx.ReadError, httpx.WriteError):
                    return
                except httpx.HTTPError as error:
                    outcomes.append(repr(error))
                    return
                if response.status_code == 503:
                    outcomes.append(response.json()["error"]["code"])
                    time.sleep(0.02)
                    continue
                outcomes.append("text" if response.json().get("text") else response.text)

        with ThreadPoolExecutor(6) as pool:
            loads = [pool.submit(load, first) for first in range(6)]
            assert wait_until(lambda: outcomes.count("text") >= 6, timeout_s=30)
            running.process.send_signal(signal.SIGTERM)
            for done in loads:
                done.result(30)
        assert set(outcomes) <= {"text", "stopping"}, set(outcomes)
        assert "stopping" in outcomes
        assert running.ended() == 0
        # as many as the server itself answered: what it read got through
        answered = Counter(running.found(r"POST /v1/audio/transcriptions \S+ s (\d+)"))
        assert answered == {"200": outcomes.count("text"), "503": outcomes.count("stopping")}
        assert wait_until(lambda: not alive(pid))
        assert not [line for line in running.lines if "Traceback" in line]


# ----------------------------------------------------------------------------------- examples


def run(
    project: Path, server: Running, name: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable] if name.endswith(".py") else ["sh"]
    return subprocess.run(
        [*command, str(project / "examples" / name), *arguments],
        env={**os.environ, "HYBRIDLAB_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def output(project: Path, server: Running, name: str, *arguments: str) -> str:
    done = run(project, server, name, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_transcribe(project: Path, server: Running) -> None:
    assert output(project, server, "transcribe.sh", str(FIRST.path)) == f"{FIRST.text}\n"
    subtitles = output(project, server, "transcribe.sh", str(CLIPS["clip-11"].path), "srt")
    assert subtitles.startswith("1\n00:00:00,000 --> ")
    assert "\n2\n" in subtitles


def test_hybrid_prints_the_transcript_and_an_answer_to_each_question(
    project: Path, server: Running
) -> None:
    asked = [q.text for q in FIRST.questions[:2]]
    out = output(project, server, "hybrid.sh", str(FIRST.path), *asked)
    events = [block.split("\n") for block in out.strip().split("\n\n")]
    names = [lines[0].removeprefix("event: ") for lines in events]
    assert [name for name in names if name != "delta"] == ["transcript", "answer", "answer", "done"]
    parts = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert parts[0]["text"] == FIRST.text
    whole = [part for name, part in zip(names, parts, strict=True) if name == "answer"]
    assert [part["question"] for part in whole] == asked
    assert [part["text"] for part in whole] == [q.answer for q in FIRST.questions[:2]]
    for index, part in enumerate(whole):
        deltas = [
            other["text"]
            for name, other in zip(names, parts, strict=True)
            if name == "delta" and other["index"] == index
        ]
        assert "".join(deltas) == part["text"]


def test_the_openai_client(project: Path, server: Running) -> None:
    question = FIRST.questions[1]
    out = output(project, server, "openai_client.py", str(FIRST.path), question.text)
    assert out.startswith("models: voxtral-pocket, whisper-pocket-m\n")
    assert f"transcript: {FIRST.text}\n" in out
    assert f"segment: 0.00 to {FIRST.audio_s:.2f} s: {FIRST.text}\n" in out
    cues = re.findall(r"\d\n(\S+) --> (\S+)\n(.+)\n", out)
    assert [text for *_, text in cues] == ["zero six seven", "three five six one"]
    assert (cues[0][0], cues[-1][1]) == ("00:00:00,000", "00:00:07,848")
    assert f"answer: {question.answer}\nstreamed: {question.answer}\n" in out
    assert re.search(r"tokens: 38\d of the prompt, 3 of the answer\n", out)


def test_a_wrong_call_says_why_and_fails(project: Path, server: Running) -> None:
    done = run(project, server, "transcribe.sh", str(FIRST.path), "docx")
    assert done.returncode == 22
    assert "response_format: Input should be 'json'" in json.loads(done.stdout)["error"]["message"]
