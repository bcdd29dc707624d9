"""The GPU check: its time, what a step may end in, and its sentences from rows that are known."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check import commands, findings
from benchmarks.gpu_check import steps as steps_module
from benchmarks.gpu_check.__main__ import chosen, new_folder
from benchmarks.gpu_check.commands import Command, Ended, parsed, run, verdict
from benchmarks.gpu_check.findings import ALLOCATED, RESERVED, Finding
from benchmarks.gpu_check.machine import Machine
from benchmarks.gpu_check.sharing import OPTIONS, arms, parameters
from benchmarks.gpu_check.steps import STEPS, Check, Place, Step
from hybridlab.catalog import STRATEGIES
from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GB, GIB, MIB

H100 = Machine(title="NVIDIA H100", capacity_bytes=79 * GIB, card="h100", simulated=False)
SIMULATED = replace(H100, simulated=True)


def python(code: str, name: str = "program") -> Command:
    return Command(name=name, argv=[sys.executable, "-c", code])


@pytest.fixture
def ran(tmp_path: Path) -> Callable[..., Ended]:
    def ran(code: str, limit_s: float = 60.0) -> Ended:
        return run(python(code), limit_s=limit_s, log=tmp_path / "log.txt", scratch=tmp_path)

    return ran


# ----------------------------------------------------------------------------------------- commands


def test_a_program_that_is_cut_keeps_what_it_said_and_leaves_nobody_behind(
    ran: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "GRACE_S", 1.0)
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import json, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn!r}], start_new_session=True)\n"
        "print(json.dumps({'pid': child.pid}))\nprint('{\"half')\ntime.sleep(60)"
    )
    began = time.monotonic()
    ended = ran(code, limit_s=8.0)
    assert time.monotonic() - began < 10.0
    assert (ended.status, ended.reason) == ("cut", "cut after 8 s")
    (row,) = ended.rows
    stat = Path(f"/proc/{row['pid']}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    assert ran(stubborn, limit_s=2.0).status == "cut"  # does not end when it is told to


def test_a_fault_is_told_by_the_last_line_and_a_lack_is_none(
    ran: Callable[..., Ended], tmp_path: Path
) -> None:
    failed = ran("print('{\"row\": 1}'); raise ValueError('no such thing')")
    assert (failed.status, failed.reason) == ("failed", "ValueError: no such thing")
    assert failed.rows == [{"row": 1}]
    lack = "from hybridlab.errors import UnavailableError; raise UnavailableError('no room')"
    assert (ran(lack).status, ran(lack).reason) == ("skipped", "no room")
    assert "no such thing" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("code", "last", "status", "reason"),
    [
        (0, "a warning", "ok", ""),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "skipped", "CUDA out of memory."),
        (1, "1 failed, 2 passed in 3 s", "failed", "1 failed, 2 passed in 3 s"),
        (-9, "", "failed", "it ended with exit code -9"),
    ],
)
def test_what_an_exit_means(code: int, last: str, status: str, reason: str) -> None:
    assert verdict(code, last, 10.0) == (status, reason)


def test_rows_are_one_value_or_a_line_each() -> None:
    assert parsed(json.dumps({"a": 1}, indent=2)) == [{"a": 1}]
    assert parsed('{"a": 1}\n{"a": 2}\n{"a"') == [{"a": 1}, {"a": 2}]
    assert parsed("") == []


# ------------------------------------------------------------------------------------------- budget


def step(name: str, code: str, *, most_s: float = 60.0) -> Step:
    return Step(
        name=name,
        question="?",
        most_s=most_s,
        commands=lambda machine, place: [python(code, name)],
        finding=lambda ended, machine, place: Finding(rows=ended[name].rows, sentence="said"),
    )


def impossible(machine: Machine, place: Place) -> list[Command]:
    raise UnavailableError("no such card")


@pytest.fixture
def check(tmp_path: Path) -> Check:
    for folder in ("output", "scratch"):
        (tmp_path / folder).mkdir()
    ends_s = time.monotonic() + 60
    return Check(H100, tmp_path / "output", tmp_path / "scratch", ends_s=ends_s)


def test_a_step_that_fails_or_cannot_be_done_is_recorded_and_the_next_goes_on(
    check: Check,
) -> None:
    check.run(step("good", "print('{}')"))
    assert not check.failed
    check.run(step("bad", "raise SystemExit('it broke')"))
    check.run(replace(step("away", ""), commands=impossible))
    check.run(step("last", "print('{}')"))
    assert check.failed
    summary = json.loads((check.output / "summary.json").read_text())
    told = [(row["step"], row["status"], row["reason"]) for row in summary["steps"]]
    assert told == [
        ("good", "ok", ""),
        ("bad", "failed", "it broke"),
        ("away", "skipped", "no such card"),
        ("last", "ok", ""),
    ]
    assert summary["card"] == "h100" and summary["evidence"] == "measured"
    assert "| bad | failed | " in (check.output / "summary.md").read_text()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "GRACE_S", 1.0)
    monkeypatch.setattr(steps_module, "LEAST_S", 1.5)


@pytest.mark.usefixtures("hasty")
def test_what_has_no_time_left_is_listed(check: Check) -> None:
    check.ends_s = time.monotonic() + 4
    long = "import time; print('{}', flush=True); time.sleep(60)"
    assert check.run(step("long", long)).status == "cut"
    done = check.run(step("next", "print('{}')"))
    assert (done.status, done.reason) == ("left out", "no time was left for it")
    assert time.monotonic() < check.ends_s + 1
    assert not check.failed


@pytest.mark.usefixtures("hasty")
def test_a_step_has_no_more_than_its_own_time(check: Check) -> None:
    done = check.run(step("long", "import time; time.sleep(60)", most_s=3.0))
    assert done.status == "cut" and done.seconds < 5
    check.slowness = 4.0
    assert check.run(step("slow", "import time; time.sleep(4)", most_s=3.0)).status == "ok"


def test_a_card_that_is_none_of_the_catalog_is_not_simulated(check: Check) -> None:
    check.machine = replace(H100, title="NVIDIA Other", card="")
    done = check.run(STEPS["pairs"])
    assert done.status == "skipped"
    assert done.reason == "NVIDIA Other is no card of the catalog: none to simulate"


def test_steps_are_chosen_by_name_and_a_folder_is_never_written_over(tmp_path: Path) -> None:
    assert chosen("tests, pairs") == ["tests", "pairs"]
    assert chosen("") == list(STEPS)
    with pytest.raises(ParameterError, match="unknown step 'speed'"):
        chosen("speed")
    assert new_folder(tmp_path / "new").is_dir()
    (tmp_path / "new" / "file").touch()
    with pytest.raises(ParameterError, match="holds something already"):
        new_folder(tmp_path / "new")


def test_the_tests_of_a_gpu_are_those_that_are_marked(check: Check) -> None:
    place = Place(output=check.output, scratch=check.scratch)
    (command,) = STEPS["tests"].commands(H100, place)
    files = {Path(word).name for word in command.argv if word.endswith(".py")}
    assert {"test_device.py", "test_swapping.py"} <= files
    assert "test_catalog.py" not in files


# ----------------------------------------------------------------------------------------- findings


def pair(name: str, side: str, **changes: Any) -> dict[str, Any]:
    readings = dict.fromkeys((*ALLOCATED, *RESERVED), 8 * GIB)
    return {"pair": name, "side": side, "status": "ok", "reason": "", **readings, **changes}


@pytest.mark.parametrize(
    ("reading", "more", "equal"),
    [
        ("idle_bytes", 0, True),
        ("idle_bytes", 1, False),
        ("idle_reserved_bytes", 20 * MIB, True),
        ("idle_reserved_bytes", 20 * MIB + 1, False),
    ],
)
def test_pairs_are_equal_to_the_byte_and_reserved_to_a_segment(
    reading: str, more: int, equal: bool
) -> None:
    rows = [pair("a", "here", **{reading: 8 * GIB + more}), pair("a", "simulated")]
    rows += [pair("b", "here"), pair("b", "simulated")]
    found = findings.of_pairs(rows)
    assert bool(found.fault) != equal
    compared = [row for row in found.rows if "equal" in row]
    assert len(compared) == 12
    other = [row for row in compared if not row["equal"]]
    assert [row["difference_bytes"] for row in other] == ([] if equal else [more])
    assert ("differ" in found.sentence) != equal


@pytest.mark.parametrize("simulated", [[], [{"side": "simulated", "status": "oom"}]])
def test_a_pair_that_was_served_on_one_side_is_not_compared(simulated: list[Any]) -> None:
    found = findings.of_pairs([pair("b", "here"), *(pair("b", **row) for row in simulated)])
    assert (found.sentence, found.fault) == ("nothing to compare; not compared: b", "")


def ended(**result: Any) -> Ended:
    return Ended(status="ok", seconds=1.0, rows=[result])


def swap(speed: float) -> Ended:
    return ended(
        asr_model="large-v3",
        swaps_of_each=5,
        hashes_equal=1,
        same_tokens=True,
        link_bytes_per_s=25 * GB,
        median_copy_in_bytes_per_s={"asr": speed},
    )


def decoding(kind: str) -> Ended:
    return ended(
        dtype="bfloat16",
        bytes_per_token=8 * GB,
        copy_traffic_bytes_per_s=2_400 * GB,
        floor_tokens_per_s=300.0,
        kinds={kind: {"tokens_per_s": 90.0, "share_of_floor": 0.3, "token_s": 1 / 90}},
    )


def test_swaps_are_held_against_the_link_and_decoding_against_the_floor() -> None:
    found = findings.of_swaps({"single-buffer": swap(24 * GB), "pinned": swap(20 * GB)}, H100)
    assert [row["copy_in_bytes_per_s"] for row in found.rows] == [24 * GB, 20 * GB]
    assert "96 % of the link's 25.0" in found.sentence and "80 %" in found.sentence
    found = findings.of_decoding({"loop": decoding("loop")}, H100)
    (row,) = found.rows
    assert (row["tokens_per_s"], row["floor_tokens_per_s"]) == (90.0, 300.0)
    assert "30 % of the floor" in found.sentence


def test_a_simulated_card_keeps_no_times() -> None:
    swaps = findings.of_swaps({"single-buffer": swap(24 * GB)}, SIMULATED)
    decoded = findings.of_decoding({"loop": decoding("loop")}, SIMULATED)
    shared = findings.of_sharing([arm("parallel/threads")], SIMULATED)
    for found in (swaps, decoded, shared):
        assert NO_TIMES in found.sentence
        assert not any("_per_s" in name or name.endswith("_s") for name in found.rows[0])
        assert "GB/s" not in found.sentence and "tokens/s" not in found.sentence


CUT = Ended(status="cut", seconds=9.0, rows=[], reason="cut after 9.0 s")
LACK = Ended(status="skipped", seconds=1.0, rows=[], reason="no room")


@pytest.mark.parametrize(
    ("programs", "fault", "status", "reason"),
    [
        ({"a": CUT, "b": swap(1.0)}, "", "cut", "a: cut after 9.0 s"),
        ({"a": swap(1.0), "b": LACK}, "", "ok", "b: no room"),
        ({"a": LACK}, "", "skipped", "no room"),
        ({"a": swap(1.0)}, "wrong", "failed", "wrong"),
    ],
)
def test_a_step_ends_as_the_worst_of_its_programs(
    programs: dict[str, Ended], fault: str, status: str, reason: str
) -> None:
    done = findings.done("step", programs, Finding(fault=fault))
    assert (done.status, done.reason) == (status, reason)


def test_what_did_not_end_well_says_nothing() -> None:
    assert findings.of_swaps({"single-buffer": CUT}, H100) == Finding()
    assert findings.of_decoding({"loop": CUT}, H100) == Finding()


def test_tests_are_counted_and_those_that_fail_are_named(tmp_path: Path) -> None:
    assert findings.of_tests(tmp_path) == Finding()
    (tmp_path / findings.TESTS).write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.test_a" name="one" time="1.5"/>'
        '<testcase classname="tests.test_a" name="two"><failure message="no"/></testcase>'
        '<testcase classname="tests.test_b" name="three"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    found = findings.of_tests(tmp_path)
    assert found.sentence == "1 passed, 1 failed, 1 skipped"
    assert found.fault == "tests.test_a::two"
    assert found.rows[0] == {"test": "tests.test_a::one", "outcome": "passed", "seconds": 1.5}


def arm(name: str, **changes: Any) -> dict[str, Any]:
    known = {"status": "ok", "reason": "", "margin_bytes": 3 * GIB, "latency_s": 2.0}
    return {"arm": name, **known, "output_matches_reference": True, **changes}


def test_ways_of_sharing_are_told_by_margin_time_and_what_they_lack() -> None:
    rows = [
        arm("sequential/plain"),
        arm("parallel/threads", margin_bytes=2 * GIB, output_matches_reference=False),
        arm("parallel/processes-mps", status="skipped", reason="no MPS", margin_bytes=None),
    ]
    found = findings.of_sharing(rows, H100)
    assert (found.rows, found.fault) == (rows, "")
    told = [
        "2 of 3",
        "least margin is 2.00 GiB (parallel/threads)",
        "parallel/processes-mps skipped",
    ]
    assert all(words in found.sentence for words in told)
    crashed = findings.of_sharing([arm("swapping/single-buffer", status="crashed")], H100)
    assert crashed.fault == "swapping/single-buffer"


def test_the_ways_of_sharing_are_a_race_inside_a_t4(tmp_path: Path) -> None:
    params = parameters(tmp_path)
    assert (params.memory_limit, params.llm_model, params.trials) == ("t4", "mini-3b", 2)
    names = [f"{one.strategy}/{one.variant}" for one in arms()]
    assert {name.partition("/")[0] for name in names[: len(STRATEGIES)]} == set(STRATEGIES)
    assert set(OPTIONS) < set(names)
    elsewhere = {"ctranslate2", "whisper-on-cpu", "single-container", "separate-containers"}
    elsewhere |= {"reload-cached", "reload-from-disk"}
    left_out = [f"{s.name}/{v.name}" for s in STRATEGIES.values() for v in s]
    assert {name.partition("/")[2] for name in {*left_out} - {*names}} == elsewhere
