"""Each example for real, against one server on the pocket pair."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.endurance.server import Running
from hybridlab.audio import load_clips

CLIPS = {clip.id: clip for clip in load_clips()}
FIRST = CLIPS["clip-01"]


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
    assert f"00:00:00,000 --> 00:00:07,848\n{FIRST.text}\n" in out
    assert f"answer: {question.answer}\nstreamed: {question.answer}\n" in out
    assert re.search(r"tokens: 38\d of the prompt, 3 of the answer\n", out)


def test_a_wrong_call_says_why_and_fails(project: Path, server: Running) -> None:
    done = run(project, server, "transcribe.sh", str(FIRST.path), "docx")
    assert done.returncode == 22
    assert "response_format: Input should be 'json'" in json.loads(done.stdout)["error"]["message"]
