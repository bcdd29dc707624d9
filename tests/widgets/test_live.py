"""The live view without a notebook: what a case tells, how it is drawn, how it is stopped."""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from hybridlab.config.params import SequentialParams
from hybridlab.devices import CpuDevice
from hybridlab.devices.procfs import resident_bytes
from hybridlab.experiments.live_feed import LiveFeed, LiveState, read_told
from hybridlab.experiments.plans import strategy_comparison
from hybridlab.experiments.session import Session
from hybridlab.processes.fork_server import STOPPED, CaseServer
from hybridlab.reporting.labels import OWNERS
from hybridlab.reporting.memory_stack import FAR
from hybridlab.reporting.palette import OWNER_COLOURS
from hybridlab.results.manifest import read_manifest
from hybridlab.results.reader import read_rows
from hybridlab.results.writer import TableWriter
from hybridlab.units import MIB
from hybridlab.widgets import live_view
from hybridlab.widgets.live import invalid_html, memory_html, trial_html
from hybridlab.widgets.stopping import Stop
from hybridlab.widgets.watched_case import WatchedCase, stack_of, used_bytes
from tests.watcher import Watcher

TOLD = LiveState(
    stage="request",
    phase="asr encode",
    owners={"base": 300 * MIB, "llm": 40 * MIB, "asr": 20 * MIB},
    unnamed_bytes=10 * MIB,
    capacity_bytes=1000 * MIB,
)

# ------------------------------------------------------------------------------- what a case tells


def test_what_is_told_is_read_and_nothing_is_written_without_a_change(tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    broadcast = LiveFeed(path)
    assert read_told(path) == LiveState()
    broadcast.tell(**vars(TOLD))
    assert read_told(path) == TOLD
    size = path.stat().st_size
    broadcast.tell(phase="asr encode")
    assert path.stat().st_size == size
    broadcast.tell(phase="asr decode")
    with path.open("ab") as file:
        file.write(b'{"stage": "in the mak')
    assert read_told(path).phase == "asr decode"


def test_nobody_is_told_without_a_path() -> None:
    broadcast = LiveFeed()
    broadcast.tell(phase="asr encode")
    assert not broadcast.watched
    assert broadcast.told == LiveState()


def test_a_watched_case_names_its_phases_and_owners(
    tmp_path: Path, case_server: CaseServer
) -> None:
    session = open_session(tmp_path, trials=3)
    watcher = Watcher(tmp_path, tick=lambda pid: False)
    session.runner.view = watcher
    row = session.runner.run(session.case("strategy_comparison"))
    assert row["status"] == "ok", row["reason"]
    told = [LiveState(**line) for line in read_rows(watcher.told)]
    phases = list(dict.fromkeys(word.phase for word in told))
    expected = [
        *("load", "llm load", "asr load", "request"),
        *("asr prepare", "asr encode", "asr prefill", "asr decode"),
        *("llm prepare", "llm encode", "llm prefill", "llm decode", "close"),
    ]
    assert [phase for phase in phases if phase] == expected
    served = next(word for word in told if word.stage == "request")
    assert served.owners["base"] >= row["process_baseline_bytes"] > 0
    for role in ("llm", "asr"):  # the processor's bytes are its model's, too
        assert served.owners[role] >= row[f"{role}_weights_bytes"] > 0
    assert row["loaded_bytes"] == sum(served.owners.values()) + served.unnamed_bytes
    assert served.capacity_bytes == session.device.capacity_bytes()
    assert watcher.places == ["1 of 1"]
    assert watcher.rows == [row]


# ------------------------------------------------------------------------------------ the picture


@pytest.mark.parametrize("used", [0, 100 * MIB, 350 * MIB, 365 * MIB, 500 * MIB])
@pytest.mark.parametrize("stage", ["", "load", "load whisper", "request", "maintenance"])
def test_a_stack_is_what_is_in_use(used: int, stage: str) -> None:
    stack = stack_of(replace(TOLD, stage=stage), used)
    assert sum(stack.values()) == used
    assert set(stack) <= set(OWNERS)
    assert all(n_bytes >= 0 for n_bytes in stack.values())


def test_the_rest_is_whose_work_it_is() -> None:
    known = {"base": 300 * MIB, "llm": 40 * MIB, "asr": 20 * MIB, "unattributed": 10 * MIB}
    assert stack_of(TOLD, 500 * MIB) == {**known, "request": 130 * MIB}
    assert stack_of(replace(TOLD, stage="load"), 500 * MIB) == {**known, "load": 130 * MIB}
    assert stack_of(LiveState(), 500 * MIB) == {"base": 500 * MIB}


def drawn(told: LiveState, used: int) -> ElementTree.Element:
    """The picture of so many bytes as a tree."""
    return ElementTree.fromstring(f"<div>{memory_html(told, used, used)}</div>")


def test_a_picture_has_a_piece_and_a_word_for_each_owner() -> None:
    tree = drawn(TOLD, 500 * MIB)
    pieces = [span.attrib for span in tree.iter("span") if "data-owner" in span.attrib]
    shown = ("base", "llm", "asr", "unattributed", "request")
    assert [piece["data-owner"] for piece in pieces] == list(shown)
    for owner, piece in zip(shown, pieces, strict=True):
        assert OWNER_COLOURS[owner] in piece["style"]
    sizes = [float(re.findall(r"flex:(\d+)", piece["style"])[0]) for piece in pieces]
    assert sum(sizes) == 500 * MIB
    words = "".join(tree.itertext())
    for part in (
        *("request 130 MiB", "Whisper weights 20 MiB", "capacity 1000 MiB"),
        "500 MiB in use, at most 500 MiB",
    ):
        assert part in words
    (bar,) = re.findall(r"width:([\d.]+)%", ElementTree.tostring(tree, "unicode"))
    (mark,) = re.findall(r"left:([\d.]+)%", ElementTree.tostring(tree, "unicode"))
    assert float(bar) == pytest.approx(float(mark) / 2, abs=0.1)  # half of the capacity
    assert "no reading" in memory_html(LiveState(), 0, 0)


def test_the_dashed_line_is_there_and_a_far_capacity_is_said_instead() -> None:
    def marks(tree: ElementTree.Element) -> int:
        return sum(span.get("class") == "capacity" for span in tree.iter("span"))

    assert marks(drawn(TOLD, 500 * MIB)) == 1
    far = drawn(replace(TOLD, capacity_bytes=int(FAR * 600 * MIB)), 500 * MIB)
    assert marks(far) == 0
    assert "far outside this axis" in "".join(far.itertext())
    others = drawn(replace(TOLD, others_bytes=100 * MIB), 500 * MIB)
    assert "other processes 100 MiB" in "".join(others.itertext())


def test_invalid_cases_are_counted_by_their_last_try_and_the_cause_is_named() -> None:
    assert invalid_html({"a": "ok"}, "") == ""
    words = invalid_html({"a": "ok", "b": "invalid", "c": "invalid"}, "others used <75%>")
    assert "2 of 3 cases so far invalid" in words
    assert "others used &lt;75%&gt;" in words


def test_a_trial_is_text_and_never_markup() -> None:
    texts = {"transcript": "<script>alert(1)</script>", "question": None, "answer": "two & three"}
    html = trial_html({"clip_id": "a<b", "audio_s": 3.0, "latency_s": 0.121, **texts}, 5)
    assert "<script>" not in html
    assert "trial 5, a&lt;b of 3.0 s: <b>121 ms</b>" in html
    assert "two &amp; three" in html
    assert "question" not in html


def test_trials_of_the_running_case_alone_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text('{"case_id": "mine", "request_id": "of an earlier try"}\n')
    case: Any = SimpleNamespace(id="mine")
    watched = WatchedCase(case, "1 of 1", "cpu", tmp_path / "told.jsonl", path)
    watched.read_trials()
    assert (watched.n_trials, watched.latest_trial) == (0, None)
    with path.open("a") as file:
        file.write('{"case_id": "mine", "n": 1}\n{"case_id": "other", "n": 2}\n{"case_id": "mi')
    watched.look(os.getpid())
    assert (watched.n_trials, watched.latest_trial) == (1, {"case_id": "mine", "n": 1})
    assert 0 < watched.used_bytes == watched.highest_bytes


def test_what_is_in_use_is_the_process_and_its_workers_own_pages() -> None:
    me = os.getpid()
    alone = used_bytes("cpu", me, LiveState())
    shared = LiveState(workers={str(me): resident_bytes(me) // 2})
    both = used_bytes("cpu", me, shared)
    assert alone is not None and both is not None
    assert both == pytest.approx(1.5 * alone, rel=0.05)
    assert used_bytes("cpu", 2**22 + 1, LiveState()) is None  # no such process


# --------------------------------------------------------------------------------------- stopping


def open_session(tmp_path: Path, **values: Any) -> Session:
    small = {"output_dir": str(tmp_path / "run"), "trials": 2, "max_new_tokens": 8}
    return Session.open(
        SequentialParams.from_mapping(
            {**small, "max_other_cpu_share": 1.0, "headless": True, **values}
        )
    )


def test_a_stopped_case_has_its_reason_no_rows_and_is_run_again(
    tmp_path: Path, case_server: CaseServer, capsys: pytest.CaptureFixture[str]
) -> None:
    session = open_session(tmp_path, trials=8)
    trials = session.part.folder / "trials.jsonl"
    pids: list[int] = []

    def once_at_work(pid: int) -> bool:
        pids.append(pid)
        return bool(read_rows(trials))

    session.runner.view = Watcher(tmp_path, tick=once_at_work)
    case = session.case("strategy_comparison")
    row = session.runner.run(case)
    assert (row["status"], row["reason"]) == ("skipped", STOPPED)
    assert read_rows(trials) == []
    wait_for_end(pids[0])
    session.close()
    assert "run this notebook again" in capsys.readouterr().out
    manifest = read_manifest(session.part.folder)
    assert manifest["status"] == "failed"
    assert case.id in manifest["reason"]

    again = open_session(tmp_path, trials=8)
    row = again.runner.run(case)
    assert row["status"] == "ok", row["reason"]
    assert [r["status"] for r in read_rows(again.part.folder / "cases.jsonl")] == ["ok"]
    again.close()
    assert read_manifest(again.part.folder)["status"] == "completed"


def wait_for_end(pid: int) -> None:
    for _ in range(100):
        if not resident_bytes(pid):
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"process {pid} is still there")


def test_stopping_the_rest_runs_nothing_more(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    watcher = Watcher(tmp_path, tick=lambda pid: True)
    watcher.stopped = True
    session.runner.view = watcher
    kept = session.case("retained")
    TableWriter(session.part.folder, session.part.writer.common).append(
        "cases", {**kept.identity(), "status": "ok", "reason": ""}
    )
    rows = [
        session.runner.run(kept),
        *strategy_comparison.run(session, [strategy_comparison.CONTROL], rounds=2),
    ]
    assert [row["reason"] for row in rows] == ["", STOPPED]
    assert watcher.places == []


def test_an_interrupt_is_a_wish_and_a_second_one_stops_the_rest() -> None:
    stop, before = Stop(), signal.getsignal(signal.SIGINT)
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        assert (stop.case, stop.rest) == (True, False)
    assert signal.getsignal(signal.SIGINT) is before
    with stop.listening():
        assert not stop.case  # the next case is another one
        signal.raise_signal(signal.SIGINT)
        assert (stop.case, stop.rest) == (True, True)


def test_headless_inline_and_outside_a_notebook_nobody_watches() -> None:
    for values in ({"headless": True}, {"inline": True}, {}):
        assert live_view(SequentialParams.from_mapping(values), CpuDevice()) is None
