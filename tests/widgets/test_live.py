"""The live view without a notebook: what a case tells, how it is drawn, how it is stopped."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from hybridlab.config.params import SequentialParams
from hybridlab.devices import CpuDevice
from hybridlab.devices.linux import resident_bytes
from hybridlab.experiments import race
from hybridlab.experiments.broadcast import Broadcast, Told, read_told
from hybridlab.experiments.lab import Lab
from hybridlab.processes.isolate import STOPPED, CaseServer
from hybridlab.reporting.figures.palette import OWNER_COLOURS
from hybridlab.results.records import TableWriter, read_manifest, read_rows
from hybridlab.units import MIB
from hybridlab.widgets import live_view
from hybridlab.widgets.live import trial_html
from hybridlab.widgets.picture import FAR, OWNERS, Moment, picture, stack_of
from hybridlab.widgets.reading import Trials, used_bytes
from hybridlab.widgets.stop import Stop, let_clicks_through, takes_clicks
from tests.watcher import Watcher

TOLD = Told(
    stage="request",
    phase="whisper encode",
    owners={"base": 300 * MIB, "voxtral": 40 * MIB, "whisper": 20 * MIB},
    unnamed_bytes=10 * MIB,
    capacity_bytes=1000 * MIB,
)

# ------------------------------------------------------------------------------- what a case tells


def test_what_is_told_is_read_and_nothing_is_written_without_a_change(tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    broadcast = Broadcast(path)
    assert read_told(path) == Told()
    broadcast.tell(**vars(TOLD))
    assert read_told(path) == TOLD
    size = path.stat().st_size
    broadcast.tell(phase="whisper encode")
    assert path.stat().st_size == size
    broadcast.tell(phase="whisper decode")
    with path.open("ab") as file:
        file.write(b'{"stage": "in the mak')
    assert read_told(path).phase == "whisper decode"


def test_nobody_is_told_without_a_path() -> None:
    broadcast = Broadcast()
    broadcast.tell(phase="whisper encode")
    assert not broadcast.watched
    assert broadcast.told == Told()


def test_a_watched_case_names_its_phases_and_owners(
    tmp_path: Path, case_server: CaseServer
) -> None:
    lab = open_lab(tmp_path, trials=3)
    watcher = Watcher(tmp_path, tick=lambda pid: False)
    lab.runner.view = watcher
    row = lab.runner.run(lab.case("race"))
    assert row["status"] == "ok", row["reason"]
    told = [Told(**line) for line in read_rows(watcher.told)]
    phases = list(dict.fromkeys(word.phase for word in told))
    expected = [
        *("load", "voxtral load", "whisper load", "request"),
        *("whisper prepare", "whisper encode", "whisper prefill", "whisper decode"),
        *("voxtral prepare", "voxtral encode", "voxtral prefill", "voxtral decode", "close"),
    ]
    assert [phase for phase in phases if phase] == expected
    served = next(word for word in told if word.stage == "request")
    for owner in ("base", "voxtral", "whisper"):
        # the processor's bytes are its tenant's, too
        assert served.owners[owner] >= row[f"{owner}_bytes"] > 0
    assert row["steady_bytes"] == sum(served.owners.values()) + served.unnamed_bytes
    assert served.capacity_bytes == lab.device.capacity_bytes()
    assert watcher.places == ["1 of 1"]
    assert watcher.rows == [row]


# ------------------------------------------------------------------------------------ the picture


@pytest.mark.parametrize("used", [0, 100 * MIB, 350 * MIB, 365 * MIB, 500 * MIB])
@pytest.mark.parametrize("stage", ["", "load", "load whisper", "request", "housekeeping"])
def test_a_stack_is_what_is_in_use(used: int, stage: str) -> None:
    stack = stack_of(Told(**{**vars(TOLD), "stage": stage}), used)
    assert sum(stack.values()) == used
    assert set(stack) <= set(OWNERS)
    assert all(n_bytes >= 0 for n_bytes in stack.values())


def test_the_rest_is_whose_work_it_is() -> None:
    assert stack_of(TOLD, 500 * MIB)["request"] == 130 * MIB
    assert stack_of(TOLD, 500 * MIB)["unexplained"] == 10 * MIB
    loading = Told(stage="load", owners=TOLD.owners)
    assert stack_of(loading, 500 * MIB)["load"] == 140 * MIB
    assert stack_of(Told(), 500 * MIB)["base"] == 500 * MIB


def drawn(told: Told, *used: int) -> ElementTree.Element:
    """The picture of so many bytes, a second apart, as a tree."""
    history = [Moment(float(i), stack_of(told, n_bytes)) for i, n_bytes in enumerate(used)]
    return ElementTree.fromstring(f"<div>{picture(history, told)}</div>")


def test_a_picture_has_a_layer_and_a_word_for_each_owner() -> None:
    tree = drawn(TOLD, 400 * MIB, 500 * MIB)
    layers = {p.attrib["fill"] for p in tree.iter("polygon")}
    assert layers == {f"url(#hybridlab-{o})" for o in OWNERS if o != "load"}
    colours = {r.attrib["fill"] for pattern in tree.iter("pattern") for r in pattern.iter("rect")}
    assert colours == {OWNER_COLOURS[owner] for owner in OWNERS}
    words = "".join(tree.itertext())
    for word in (
        "request 130 MiB",
        "Whisper weights 20 MiB",
        "capacity 1000 MiB",
        "500 MiB in use",
    ):
        assert word in words
    heights = [float(box.attrib["width"]) for box in tree.iter("rect") if "y" in box.attrib]
    assert sum(heights[1:]) == pytest.approx(heights[0] / 2, abs=1)  # half of the capacity


def test_the_dashed_line_is_there_and_a_far_capacity_is_said_instead() -> None:
    def dashes(tree: ElementTree.Element) -> int:
        return sum("stroke-dasharray" in line.attrib for line in tree.iter("line"))

    near = drawn(TOLD, 500 * MIB)
    assert dashes(near) == 2  # across the bar and across the curve
    far = drawn(Told(**{**vars(TOLD), "capacity_bytes": FAR * 600 * MIB}), 500 * MIB)
    assert dashes(far) == 1
    assert "far above this curve" in "".join(far.itertext())
    assert picture([], TOLD) == ""


def test_a_trial_is_text_and_never_markup() -> None:
    trial = {
        "clip_id": "a<b",
        "audio_s": 3.0,
        "latency_s": 0.121,
        "transcript": "<script>alert(1)</script>",
        "question": None,
        "answer": "two & three",
    }
    html = trial_html(trial, 5)
    assert "<script>" not in html
    assert "trial 5, a&lt;b of 3.0 s: <b>121 ms</b>" in html
    assert "two &amp; three" in html
    assert "question" not in html


def test_trials_of_the_running_case_alone_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text('{"case_id": "mine", "request_id": "of an earlier try"}\n')
    trials = Trials(path, "mine")
    trials.read()
    assert (trials.count, trials.latest) == (0, None)
    with path.open("a") as file:
        file.write('{"case_id": "mine", "n": 1}\n{"case_id": "other", "n": 2}\n{"case_id": "mi')
    trials.read()
    assert (trials.count, trials.latest) == (1, {"case_id": "mine", "n": 1})


def test_what_is_in_use_is_the_process_and_its_workers_own_pages() -> None:
    me = os.getpid()
    alone = used_bytes("cpu", me, Told())
    shared = Told(workers={str(me): resident_bytes(me) // 2})
    both = used_bytes("cpu", me, shared)
    assert alone is not None and both is not None
    assert both == pytest.approx(1.5 * alone, rel=0.05)
    assert used_bytes("cpu", 2**22 + 1, Told()) is None  # no such process


# --------------------------------------------------------------------------------------- stopping


def open_lab(tmp_path: Path, **values: Any) -> Lab:
    small = {"output_dir": str(tmp_path / "run"), "trials": 2, "max_new_tokens": 8}
    return Lab.open(
        SequentialParams.from_mapping(
            {**small, "most_foreign_cpu": 1.0, "headless": True, **values}
        )
    )


def test_a_stopped_case_has_its_reason_no_rows_and_is_run_again(
    tmp_path: Path, case_server: CaseServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = open_lab(tmp_path, trials=8)
    trials = lab.part.folder / "trials.jsonl"
    pids: list[int] = []

    def once_at_work(pid: int) -> bool:
        pids.append(pid)
        return bool(read_rows(trials))

    lab.runner.view = Watcher(tmp_path, tick=once_at_work)
    case = lab.case("race")
    row = lab.runner.run(case)
    assert (row["status"], row["reason"]) == ("skipped", STOPPED)
    assert read_rows(trials) == []
    wait_for_end(pids[0])
    lab.close()
    assert "run this notebook again" in capsys.readouterr().out
    manifest = read_manifest(lab.part.folder)
    assert manifest["status"] == "failed"
    assert case.id in manifest["reason"]

    again = open_lab(tmp_path, trials=8)
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
    lab = open_lab(tmp_path)
    watcher = Watcher(tmp_path, tick=lambda pid: True)
    watcher.stopped = True
    lab.runner.view = watcher
    kept = lab.case("kept")
    TableWriter(lab.part.folder, lab.part.writer.common).append(
        "cases", {**kept.identity(), "status": "ok", "reason": "", "stable": None}
    )
    rows = [lab.runner.run(kept), *race.run(lab, [race.CONTROL], rounds=2)]
    assert [row["reason"] for row in rows] == ["", STOPPED]
    assert watcher.places == []


def test_an_interrupt_is_a_wish_and_a_second_one_stops_the_rest() -> None:
    stop, before = Stop(), signal.getsignal(signal.SIGINT)
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.case.wait(1)
        assert not stop.rest.is_set()
    assert signal.getsignal(signal.SIGINT) is before
    with stop.listening():
        assert not stop.case.is_set()  # the next case is another one
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.case.wait(1)
        assert stop.rest.is_set()


def test_a_click_comes_from_another_thread_and_counts_only_while_a_case_runs() -> None:
    stop = Stop()
    stop.press(rest=True)
    assert not stop.rest.is_set()
    with stop.listening():
        click = threading.Thread(target=stop.press)
        click.start()
        click.join()
        assert stop.case.is_set()
        assert not stop.rest.is_set()


def test_buttons_are_for_kernels_that_take_clicks_while_they_work() -> None:
    def kernel(*features: str) -> Any:
        return SimpleNamespace(kernel_info={"supported_features": list(features)})

    assert takes_clicks(kernel("debugger", "kernel subshells"))
    assert not takes_clicks(kernel("debugger"))
    assert not takes_clicks(SimpleNamespace(kernel_info={}))  # ipykernel 6
    assert not takes_clicks(SimpleNamespace())
    comm = SimpleNamespace(_reply_subshell_id=None)
    for _ in range(2):  # other versions do not have it
        let_clicks_through(SimpleNamespace(comm=comm))
        assert not hasattr(comm, "_reply_subshell_id")


def test_headless_inline_and_outside_a_notebook_nobody_watches() -> None:
    for values in ({"headless": True}, {"inline": True}, {}):
        assert live_view(SequentialParams.from_mapping(values), CpuDevice()) is None
