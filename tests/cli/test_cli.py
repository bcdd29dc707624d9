from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hybridlab import api, catalog, planner
from hybridlab.analysis.fit_report import evaluate_fit
from hybridlab.analysis.verdict import NOTHING_KEEPS, read_verdict
from hybridlab.cli import bars
from hybridlab.cli import fit as fit_command
from hybridlab.cli import plan as plan_command
from hybridlab.cli.app import COMMANDS, join_overrides
from hybridlab.cli.commands import app
from hybridlab.cli.verdict import claim_table, goal_table
from tests.synthetic import change_cases, write_run

PRESET = "params/pocket.yaml"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_plan_prints_all_six_sizes_beside_voxtral() -> None:
    code, text = run("plan", "--card", "t4")
    assert code == 0
    for size in ("tiny", "base", "small", "medium", "large-v3", "turbo"):
        assert size in text
    assert "predicted" in text
    assert "does not fit" in run("plan", "--card", "t4", "--all")[1]


@pytest.mark.parametrize(
    ("every", "code", "said"),
    [(0, 0, ""), (2, 0, "24 of 45 cases invalid"), (1, 3, "45 of 45 cases invalid")],
)
def test_the_last_line_of_a_run_says_what_is_invalid(
    every: int, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path)
    if every:
        invalid = {"status": "invalid", "other_processes_cpu_share": 0.75}
        change_cases(folder, "strategy_comparison", invalid, every=every)
    monkeypatch.setattr(api, "run", lambda *args, **kwargs: api.Run(folder))
    ended, text = run("run", PRESET)
    assert ended == code, text
    answer, report, *invalid = text.splitlines()[-3 if said else -2 :]
    assert answer.startswith("answer: On this GPU (cuda:0) Whisper turbo (transformers, float16)")
    assert report == f"report: {folder / 'index.html'}"
    last = "".join(invalid)
    assert last.startswith(said)
    if said:
        cause = "other programs used up to 75 % of the CPU; close them and repeat"
        assert cause in last
        assert last.endswith(f"{folder.name} --resume")
    told = json.loads(run("run", PRESET, "--json")[1])
    assert told["invalid"].startswith(said)
    assert f"answer: {told['answer']}" == answer


def test_the_answer_of_a_run_is_the_first_sentence_of_its_report(
    tmp_path: Path, project: Path
) -> None:
    folder = shutil.copytree(project / "outputs" / "reference" / "t4-simulated", tmp_path / "run")
    code, text = run("report", str(folder))
    assert code == 0
    answer, report = text.splitlines()
    sentence = answer.removeprefix("answer: ")
    assert sentence.startswith("On a simulated T4 Whisper large-v3 (transformers, float16) fits")
    assert f">{sentence}<" in (folder / "index.html").read_text(encoding="utf-8")
    assert report == f"report: {folder / 'index.html'}"


def test_a_run_in_which_nothing_began_has_no_answer_and_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path, notebooks=0)
    monkeypatch.setattr(api, "run", lambda *args, **kwargs: api.Run(folder))
    code, text = run("run", PRESET)
    assert code == 1
    assert text.splitlines()[-1] == f"no report: no notebook in {folder} began to measure"
    told = json.loads(run("run", PRESET, "--json")[1])
    assert (told["answer"], told["report"], told["invalid"]) == ("", "", "")


def test_plan_of_sizes_that_are_named_has_them_alone() -> None:
    code, text = run("plan", "--asr-model", "base.en")
    assert code == 0
    assert "base.en (transformers, float16), the most precise of what fits" in " ".join(
        text.split()
    )
    assert "--asr-model base.en" in text
    assert "large-v3" not in text
    rows = json.loads(run("plan", "--asr-model", "base.en", "--asr-model", "base", "--json")[1])
    assert {row["asr_model"] for row in rows["rows"]} == {"base.en", "base"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--card", "t44"), "did you mean 't4'"),
        (("plan", "--beams", "0"), "above zero"),
        (("plan", "--asr-model", "base.de"), "did you mean 'base.en'"),
        (("plan", "--llm-dtype", "fp8"), "unknown llm_dtype"),
        (("plan", "--margin-gb", "-1"), "margin_gb is -1"),
        (("fit", "base", "--margin-gb", "-1"), "margin_gb is -1"),
        (("fit", "base", "--backend", "faster"), "did you mean 'faster-whisper'"),
        (("fit", "base", "--dtype", "bfloat16"), "leave --backend or --dtype out"),
        (("plan", "--audio-s", "100000"), "at most 2400 s"),
        (("plan", "--audio-s", "nan"), "above zero"),
        (("plan", "--new-tokens", "1000000000"), "Voxtral takes at most 32768 tokens"),
        (("plan", "--batch", "1000000"), "batch is 1000000; one card serves at most 4096"),
        (("plan", "--margin-gb", "1e30"), "give 0 to 10000"),
        (("plan", "--card", "rtx 4090"), "did you mean 'rtx-4090'"),
        (("fit", "base", "--host-gb", "-1"), "host_gb is -1"),
        (("fit", "base", "--host-gb", "nan"), "host_gb is nan"),
        (("fit", "larg-v3"), "did you mean 'large-v3'"),
        (("fit", "base", "--attention", "flsh"), "did you mean 'flash'"),
        (("estimate", "tinny"), "did you mean 'tiny'"),
        (("estimate", "mini-3b", "--audio-s", "100000"), "at most 2400 s"),
        (("fetch", "pockt"), "did you mean 'pocket'"),
        (("new", "My Exp"), "use lower-case words"),
        (("migrate", "tests"), "does not hold a run"),
        (("fit", "base", "--audio-s", "2401"), "at most 2400 s"),
        (("run", "params/none.yaml"), "does not exist; presets: colab-t4"),
        (("run", "pokcet"), "did you mean 'pocket'"),
        (("run", "params/own-audio.yaml"), "parameter audio has to be given: -p audio=VALUE"),
        (("run", PRESET, "-p", "trails=3"), "did you mean 'trials'"),
        (("run", PRESET, "-p", "trials=many"), "trials = 'many'"),
        (("run", PRESET, "-p", "max_new_tokens=0"), "0: write a whole number from 1"),
        (("run", PRESET, "--only", "09"), "unknown notebook"),
        (("run", PRESET, "-p", "audio=/no/such"), "does not exist"),
        (("run", PRESET, "-p", "asr_backend=faster"), "asr_backend"),
        (("run", PRESET, "--resume"), "needs --output"),
        (("report", "/no/such/run"), "/no/such/run"),
        (("verdict", "/no/such/run"), "holds no verdict.json"),
        (("verdict", "/no/such/run", "--min-margin-gb", "nan"), "must be 0 or more"),
        (("verdict", "/no/such/run", "--max-p95-s", "-1"), "must be 0 or more"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(project)
    code, text = run(*arguments)
    assert code == 2
    assert message in text
    assert len(text.strip().splitlines()) == 1


def test_a_gpu_preset_without_a_gpu_names_another_preset(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(project)
    code, text = run("run", "params/colab-t4.yaml", "--output", str(tmp_path / "run"))
    assert code == 2
    assert "params/pocket.yaml" in text
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_refused_before_anything_is_loaded(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(project)
    code, text = run(
        "run",
        PRESET,
        *("-p", "llm_model=mini-3b", "-p", "llm_weights=local"),
        *("-p", f"llm_path={tmp_path}", "--output", str(tmp_path / "run")),
    )
    assert code == 2
    assert "no config.json" in text


def test_an_existing_folder_is_never_overwritten(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    monkeypatch.chdir(project)
    code, text = run("run", PRESET, "--output", str(tmp_path))
    assert code == 2
    assert "never overwritten" in text
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_overrides_in_papermills_way() -> None:
    assert join_overrides(["run", "x", "-p", "trials", "3"]) == ["run", "x", "-p", "trials=3"]
    for given in (["run", "-p", "trials=3", "--resume"], ["simulate", "x", "-p", "no:y", "z"]):
        assert join_overrides(given) == given


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody changes."""
    return write_run(tmp_path_factory.mktemp("complete"))


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version") == (0, f"hybridlab {version('hybridlab')}\n")


def test_without_a_folder_the_newest_run_is_meant(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("verdict", "report"):
        code, text = run(command)
        assert code == 2 and "holds no run" in text
    for age, name in enumerate(("newest", "older")):
        shutil.copytree(complete, tmp_path / "outputs" / name)
        os.utime(tmp_path / "outputs" / name, (1e9 - age, 1e9 - age))
    assert run("verdict", "--json") == run("verdict", str(complete), "--json")
    code, text = run("report")
    assert code == 0 and text.splitlines()[-1] == "report: outputs/newest/index.html"


def test_a_verdict_is_printed_and_computed_anew_under_constraints(complete: Path) -> None:
    folder = str(complete)
    code, text = run("verdict", folder)
    assert code == 0
    assert "Why: lowest median latency" in text and "Runner-up sequential/plain" in text
    code, text = run("verdict", folder, "--json")
    found = json.loads(text)
    assert found["recommendation"]["variant"] == "threads"
    assert len(found["claims"]) > 1 and found["claims"][0]["verdict"]
    code, text = run("verdict", folder, "--min-margin-gb", "0.001", "--json")
    fastest = json.loads(text)["recommendation"]
    assert fastest["margin_bytes"] > 1e6 and fastest["n"] > 1
    for unkept in (("--min-margin-gb", "1e6"), ("--max-p95-s", "1e9")):  # no p95 of so few requests
        code, text = run("verdict", folder, *unkept)
        assert code == 0 and NOTHING_KEEPS in text


def test_migrate_writes_an_older_runs_verdict_anew(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 0}))
    (folder / "verdict.json").write_text(json.dumps({"recommendation": {"choice_flips": 0.1}}))
    code, text = run("migrate", str(folder))
    assert code == 0 and text.splitlines()[-1].endswith("verdict.json")
    assert read_verdict(folder)["recommendation"]["selection_instability"] >= 0
    assert run("migrate", str(folder))[1].strip().endswith("of the present schema already")


# ------------------------------------------------------------------------- terminal and pipe


def seen(view: object, *, width: int = 80) -> list[str]:
    """A rich view as lines without its colours."""
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
    console.print(view)
    return console.export_text().splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan",),
        ("fit", "large-v3"),
        ("plan", "--card", "h200", "--all"),
        ("plan", "--audio-s", "1800"),
        ("plan", *(word for card in catalog.CARDS for word in ("--card", card))),
        ("fit", "medium", "--card", "rtx-3060", "--margin-gb", "2"),
        ("fit", "tiny", "--llm-model", "pocket"),
        ("estimate", "large-v3"),
        ("estimate", "base", "--batch", "32"),
        ("--help",),
    ],
)
def test_a_pipe_gets_plain_columns_of_80(arguments: tuple[str, ...]) -> None:
    code, text = run(*arguments)
    assert code == 0
    assert "\x1b" not in text and not set(text) & set("│─┃━·…")
    assert max(map(len, text.splitlines())) <= 80
    if arguments[0] != "plan":  # whose table has three units at its head
        assert all(one_unit(line) for line in text.splitlines())


def one_unit(line: str) -> bool:
    """Whether no row mixes two units of the same quantity, the option's own beside it apart."""
    units = set(re.findall(r"\d (GiB|MiB|GB|MB|ms|s|min)\b", re.sub(r"\(.*?\)", "", line)))
    return len(units & {"GiB", "MiB", "GB", "MB"}) < 2 and len(units & {"ms", "s", "min"}) < 2


def test_the_help_has_every_command_by_name_and_cuts_none_short() -> None:
    code, text = run("--help")
    assert code == 0 and "..." not in text.partition("Commands:")[2]
    assert re.findall(r"^  (\w+)  ", text.partition("Commands:")[2], re.MULTILINE) == COMMANDS


def test_what_fits_and_leaves_too_little_is_told_from_what_does_not() -> None:
    code, text = run("fit", "medium", "--card", "rtx-3060", "--margin-gb", "2")
    assert code == 0
    text = " ".join(text.split())
    assert "fits, below the margin: 10.72 (10.36 to 11.27) of 11.72 to 11.76 GiB" in text
    assert "none leaves the margin" in text
    assert "a margin of 1.86 GiB" in text and "--margin-gb 2" in text


@pytest.mark.parametrize("width", [80, 120])
def test_bars_show_who_holds_what_against_the_capacity(width: int) -> None:
    plans = planner.plan_table(catalog.card("t4"))
    lines = seen(plan_command.bar_table(plans, width=width), width=width)
    assert len(lines) == len(plans) + 1 and max(map(len, lines)) <= width
    marks = {line.index(bars.MARK) for line in lines[1:]}
    assert len(marks) == 1  # one scale: every capacity stands in the same place
    (mark,) = marks
    for row, line in zip(plans, lines[1:], strict=True):
        over = line[mark + 1].isalpha()
        assert (
            over == (row.margin_bytes < -row.total_bytes / width)
            or abs(row.margin_bytes) < row.total_bytes / 20
        )  # rounded to a cell
        assert "V" in line


def test_a_bar_is_as_long_as_its_bytes_and_names_every_owner() -> None:
    parts = list(zip(bars.OWNERS.values(), (50, 20, 10, 0, 20), strict=True))
    text = bars.bar(parts, capacity_bytes=80, scale_bytes=200, width=20).plain
    assert text == "VVVVVWWR|oo··········"
    with pytest.raises(KeyError, match="somebody"):
        bars.owned({"llm weights": 1, "somebody": 2})


def test_fit_draws_every_moment_and_every_way_of_sharing() -> None:
    answers = evaluate_fit(
        catalog.card("t4"),
        catalog.whisper("medium"),
        catalog.voxtral("mini-3b"),
        backend="transformers",
        dtype="float16",
        host_bytes=12_700_000_000,
    )
    lines = seen(fit_command.bar_table(answers, width=80))
    assert len(lines) == 1 + 3 + len(answers.sharing) and max(map(len, lines)) <= 80
    assert all(bars.MARK in line for line in lines[1:])


def test_a_verdict_on_a_terminal_says_the_same(complete: Path) -> None:
    found = read_verdict(complete)
    goals = "\n".join(seen(goal_table(found["recommendation"]), width=140))
    for goal in found["recommendation"]["goals"]:
        assert goal["goal"] in goals and goal["arm"] in goals and goal["figure"] in goals
    claims = [(row["verdict"], row["expected"]) for row in found["claims"]]
    lines = seen(claim_table(found["claims"]), width=200)
    assert len(lines) == len(claims) + 1
    assert all(w in line and s in line for (w, s), line in zip(claims, lines[1:], strict=True))


def test_a_terminal_gets_colours_and_no_color_takes_them_away(project: Path) -> None:
    """The whole command on a real pseudo-terminal of 80 columns."""
    coloured = on_a_terminal(project, {})
    assert "\x1b[" in coloured and "48;2;1;115;178m" in coloured
    plain = on_a_terminal(project, {"NO_COLOR": "1"})
    assert "\x1b" not in plain and "higher WER" in plain
    for text in (coloured, plain):
        assert "pick" in text and "7.4 %" in text


def on_a_terminal(project: Path, environment: dict[str, str]) -> str:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    kept = {n: v for n, v in os.environ.items() if n not in ("NO_COLOR", "COLUMNS")}
    kept |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "hybridlab.cli", "plan"]
    child = subprocess.Popen(command, stdout=follower, env={**kept, **environment}, cwd=project)
    os.close(follower)
    text = b""
    with suppress(OSError):  # Linux' word for the end of a terminal
        while more := os.read(leader, 65536):
            text += more
    os.close(leader)
    assert child.wait(timeout=60) == 0
    return text.decode()
