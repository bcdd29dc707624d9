"""Runs a notebook's cases, each in a fresh process, and writes what became of them."""

from __future__ import annotations

import json
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlab.errors import CaseFailedError, HybridlabError
from hybridlab.experiments.case import Case, CaseObserver
from hybridlab.models.factory import prepare
from hybridlab.models.source import revision
from hybridlab.processes.fork_server import STOPPED, shared_server
from hybridlab.results.manifest import now, write_json
from hybridlab.results.reader import read_rows
from hybridlab.results.run_folder import NotebookRun
from hybridlab.results.schema import was_stopped
from hybridlab.results.writer import TableWriter
from hybridlab.units import counted

#: What a resumed run tries again, beside what the reader has stopped.
REPEATED = ("crashed", "timeout", "invalid")
#: What became of a case that had its weights.
WITH_WEIGHTS = ("ok", "invalid", "oom")
#: Of cases that failed, how many are named in one line.
NAMED_FAILURES = 3
STOPPED_RESULT = {"status": "skipped", "reason": STOPPED}


@dataclass(kw_only=True)
class CaseRunner:
    """Runs a notebook's cases one after the other and writes their rows of `cases`.

    A case that a previous, interrupted run has finished is not repeated. One that the reader has
    stopped through the `view` is `skipped` and leaves no rows of its own.
    """

    part: NotebookRun
    timeout_s: float = 1800.0
    inline: bool = False
    view: CaseObserver | None = None
    total: int = 0
    done: int = 0

    def run_all(
        self, cases: list[Case], lack: Callable[[Case], str] = lambda case: ""
    ) -> list[dict[str, Any]]:
        """Run these cases in this order and return their rows; one with a `lack` is skipped."""
        self.total += len(cases)
        lacks = ((case, lack(case)) for case in cases)
        return [self.skip(case, why) if why else self.run(case) for case, why in lacks]

    def run(self, case: Case) -> dict[str, Any]:
        self.total = max(self.total, self.done + 1)
        finished = self.part.finished_cases().get(case.id)
        if finished is None or finished["status"] in REPEATED or was_stopped(finished):
            finished = self._run(case)
        if finished["status"] == "invalid" and not self._no_more:  # other processes come and go
            finished = self._run(case)
        self.done += 1
        self._report_progress(case)
        return finished

    @property
    def _no_more(self) -> bool:
        return self.view is not None and self.view.stopped

    def skip(self, case: Case, reason: str) -> dict[str, Any]:
        """Record that this case was not run, and why."""
        self.total = max(self.total, self.done + 1)
        self.done += 1
        finished = self.part.finished_cases().get(case.id)
        if finished is not None:
            return finished
        row = {**case.identity(), "status": "skipped", "reason": reason}
        return self.part.writer.append("cases", row)

    def _run(self, case: Case) -> dict[str, Any]:
        folder = self.part.folder / "cases"
        folder.mkdir(exist_ok=True)
        result_path = folder / f"{case.id}.json"
        result_path.unlink(missing_ok=True)
        forget_rows(self.part.folder, case.id)
        self._report_progress(case)
        started = now()
        result = dict(STOPPED_RESULT) if self._no_more else self._in_process(case, result_path)
        row = {**case.identity(), "started": started, **result}
        if row["status"] in WITH_WEIGHTS:
            row |= _revisions(case)
        if was_stopped(row):  # half of a case is no evidence
            forget_rows(self.part.folder, case.id)
        row = self.part.writer.append("cases", row)
        if self.view is not None:
            self.view.ended(row)
        return row

    def _in_process(self, case: Case, result_path: Path) -> dict[str, Any]:
        writer = self.part.writer.with_common(**case.common())
        if self.inline:
            try:
                _execute(case, writer, result_path)
            except HybridlabError:
                raise
            except Exception as error:
                # the traceback would keep the models' tensors alive in the notebook
                traceback.clear_frames(error.__traceback__)
                raise CaseFailedError(f"case {case.id} failed: {error}") from None
            return dict(json.loads(result_path.read_text(encoding="utf-8")))
        log = result_path.with_suffix(".log")
        log.unlink(missing_ok=True)
        arguments = (_execute, case, writer, result_path)
        limits: dict[str, Any] = {"timeout_s": self.timeout_s, "log": log}
        server = shared_server(case.device)
        server.prepare(prepare, case.device, case.asr, case.llm)
        if self.view is None:
            ended = server.run(*arguments, **limits)
        else:
            place = f"{self.done + 1} of {self.total}"
            with self.view.watch(self.part, case, place) as told:
                ended = server.run(*arguments, told, **limits, on_tick=self.view.tick)
        if result_path.is_file():
            return dict(json.loads(result_path.read_text(encoding="utf-8")))
        if ended.stopped:
            return dict(STOPPED_RESULT)
        status = "timeout" if ended.timed_out else "crashed"
        return {"status": status, "reason": _reason(ended.describe(), log)}

    def _report_progress(self, case: Case) -> None:
        write_json(
            self.part.folder / "progress.json",
            {"done": self.done, "total": self.total, "case": case.id},
        )


def _execute(case: Case, writer: TableWriter, result_path: Path, *told: Path) -> None:
    """In the case's process: what runs models is imported there, and not in a notebook's kernel."""
    from hybridlab.experiments.case_worker import execute

    execute(case, writer, result_path, *told)


def _revisions(case: Case) -> dict[str, str | None]:
    """Which weights ran: asked afterwards, when the first case has fetched what was missing."""
    return {
        "llm_revision": revision(case.llm),
        "asr_revision": revision(case.asr) if case.asr is not None else None,
    }


def failures(rows: Iterable[Mapping[str, Any]]) -> str:
    """'2 cases crashed or timed out: A (its reason); B (its reason)', the first few by name; ''
    where none did."""
    failed = [row for row in rows if row["status"] in ("crashed", "timeout")]
    if not failed:
        return ""
    named = [
        f"{row['case_id']} ({textwrap.shorten(row['reason'], 200, placeholder=' …')})"
        for row in failed[:NAMED_FAILURES]
    ]
    if len(failed) > NAMED_FAILURES:
        named.append(f"and {len(failed) - NAMED_FAILURES} more")
    return f"{counted(len(failed), 'case')} crashed or timed out: {'; '.join(named)}"


def forget_rows(folder: Path, case_id: str) -> None:
    """Take the rows of an interrupted try out of a part's tables, so that a repeat does not mix."""
    for path in folder.glob("*.jsonl"):
        # a new case has none, which is found without parsing in a hundredth of the time
        if not path.is_file() or case_id.encode() not in path.read_bytes():
            continue
        kept = [row for row in read_rows(path) if row.get("case_id") != case_id]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def _reason(summary: str, log: Path) -> str:
    """How the process ended, and the last line that it wrote."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return f"{summary}: {lines[-1].strip()}" if lines else summary
