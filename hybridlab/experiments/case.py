"""A case: a picklable description, run in a fresh process, whose only results are files."""

from __future__ import annotations

import hashlib
import json
import sys
import textwrap
import traceback
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from hybridlab.catalog import LoadOrder
from hybridlab.errors import CaseFailedError, HybridlabError
from hybridlab.isolate import STOPPED, shared_server
from hybridlab.records import Part, read_rows, write_json
from hybridlab.tenants.base import TenantSpec

Work = Literal[
    "serve", "alone", "arrive", "collide", "limit", "largest", "squeeze", "ladder", "ageing"
]
#: Options of a case that stand as columns of `cases`.
OPTION_COLUMNS = (
    *("limit_kind", "limit_value"),
    *("ask", "audio_s"),
    *("remedy", "first_cycle", "cycles"),
    *("rate_rps", "load"),
)
#: What a resumed run tries again, beside what the reader has stopped.
REPEATED = ("crashed", "timeout", "invalid")
#: Of cases that failed, how many are named in one line.
NAMED_FAILURES = 3
STOPPED_RESULT = {"status": "skipped", "reason": STOPPED}


@dataclass(frozen=True, kw_only=True)
class RequestSpec:
    """A request before its audio is read."""

    id: str
    clip_id: str
    path: str
    audio_s: float
    reference: str | None
    question: str
    expected_answer: str | None
    kind: str
    #: The clip is repeated, or cut, to `audio_s` seconds.
    resized: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """One pair x strategy x variant x workload."""

    experiment: str
    work: Work
    strategy: str
    variant: str
    analyst: TenantSpec
    transcriber: TenantSpec | None
    device: str
    requests: tuple[RequestSpec, ...]
    warmup: int = 1
    language: str = "en"
    max_new_tokens: int = 64
    round: int = 0
    #: Take the memory of one request apart by phase; its latency is then not one to quote.
    phases: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    load_order: LoadOrder = "voxtral-first"
    #: Other processes may use this share of the processors before the case's times are invalid.
    most_foreign_cpu: float = 1.0
    #: A smaller card's memory that the device plays; 0 for its own.
    envelope_bytes: int = 0
    #: Whispers from large to small, the case's own first: the ladder. Empty: no stepping down.
    rungs: tuple[TenantSpec, ...] = ()

    @property
    def id(self) -> str:
        """Readable, and the same for the same description: how a resumed run finds its work."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        size = self.transcriber.model if self.transcriber else "none"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.experiment}-{self.strategy}-{self.variant}-{size}-r{self.round}-{digest}"

    def common(self) -> dict[str, Any]:
        """What stands in every row of this case, in whatever table."""
        return {
            "case_id": self.id,
            "experiment": self.experiment,
            "enveloped": self.envelope_bytes > 0,
        }

    def identity(self) -> dict[str, Any]:
        """The columns of `cases` that say what was measured."""
        whisper = self.transcriber
        return {
            **self.common(),
            "strategy": self.strategy,
            "variant": self.variant,
            "round": self.round,
            "voxtral": self.analyst.model,
            "voxtral_weights": self.analyst.weights,
            "voxtral_dtype": self.analyst.dtype,
            "attention": self.analyst.attention,
            "decoding": self.analyst.decoding,
            "load_order": self.load_order,
            "load_path": self.analyst.load_path,
            "card": self.analyst.card or None,
            "whisper_size": whisper.model if whisper else None,
            "whisper_backend": whisper.backend if whisper else None,
            "whisper_weights": whisper.weights if whisper else None,
            "whisper_dtype": whisper.dtype if whisper else None,
            **{name: self.options[name] for name in OPTION_COLUMNS if name in self.options},
        }


class View(Protocol):
    """Somebody who watches cases run, and may stop them."""

    @property
    def stopped(self) -> bool:
        """Whether no further case is wanted."""

    def watch(self, part: Part, case: Case, place: str) -> AbstractContextManager[Path]:
        """Around a case, `place` of the others ('3 of 12'): the file in which it is to tell what
        it does (`hybridlab.experiments.broadcast`). An interrupt inside stops it."""

    def tick(self, pid: int) -> bool:
        """Called four times a second while it runs; True stops it."""

    def ended(self, row: Mapping[str, Any]) -> None:
        """What became of it: its row of `cases`."""


@dataclass(kw_only=True)
class CaseRunner:
    """Runs a notebook's cases one after the other and writes their rows of `cases`.

    A case that a previous, interrupted run has finished is not repeated. One that the reader has
    stopped through the `view` is `skipped` and leaves no rows of its own.
    """

    part: Part
    timeout_s: float = 1800.0
    inline: bool = False
    view: View | None = None
    total: int = 0
    done: int = 0

    def run_all(self, cases: list[Case]) -> list[dict[str, Any]]:
        """Run these cases in this order and return their rows."""
        self.total += len(cases)
        return [self.run(case) for case in cases]

    def run(self, case: Case) -> dict[str, Any]:
        self.total = max(self.total, self.done + 1)
        finished = self.part.finished_cases().get(case.id)
        if finished is None or finished["status"] in REPEATED or was_stopped(finished):
            finished = self._run(case)
        if finished["status"] == "invalid" and not self._no_more:  # strangers come and go
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
        row = {**case.identity(), "status": "skipped", "reason": reason, "stable": None}
        return self.part.writer.append("cases", row)

    def _run(self, case: Case) -> dict[str, Any]:
        folder = self.part.folder / "cases"
        folder.mkdir(exist_ok=True)
        result_path = folder / f"{case.id}.json"
        result_path.unlink(missing_ok=True)
        forget_rows(self.part.folder, case.id)
        self._report_progress(case)
        result = dict(STOPPED_RESULT) if self._no_more else self._in_process(case, result_path)
        row = {**case.identity(), "stable": None, **result}
        if was_stopped(row):  # half of a case is no evidence
            forget_rows(self.part.folder, case.id)
        row = self.part.writer.append("cases", row)
        if self.view is not None:
            self.view.ended(row)
        return row

    def _in_process(self, case: Case, result_path: Path) -> dict[str, Any]:
        from hybridlab.experiments.execute import execute
        from hybridlab.tenants.make import prepare

        writer = self.part.writer.with_common(**case.common())
        if self.inline:
            try:
                execute(case, writer, result_path)
            except HybridlabError:
                raise
            except Exception as error:
                # the traceback would keep the tenants' tensors alive in the notebook
                traceback.clear_frames(error.__traceback__)
                raise CaseFailedError(f"case {case.id} failed: {error}") from None
            return dict(json.loads(result_path.read_text(encoding="utf-8")))
        log = result_path.with_suffix(".log")
        log.unlink(missing_ok=True)
        arguments = (execute, case, writer, result_path)
        limits: dict[str, Any] = {"timeout_s": self.timeout_s, "log": log}
        server = shared_server(case.device)
        server.prepare(prepare, case.device, case.transcriber, case.analyst)
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
        return {"status": status, "reason": _reason(ended.reason(), log)}

    def _report_progress(self, case: Case) -> None:
        write_json(
            self.part.folder / "progress.json",
            {"done": self.done, "total": self.total, "case": case.id},
        )


def was_stopped(row: Mapping[str, Any]) -> bool:
    """Whether the reader stopped this case, or those before it and it with them."""
    return bool(row["reason"] == STOPPED)


def failures(rows: Iterable[Mapping[str, Any]]) -> str:
    """'2 cases crashed or timed out: A (its reason); B (its reason)', the first few by name; ''
    where none did."""
    failed = [row for row in rows if row["status"] in ("crashed", "timeout")]
    if not failed:
        return ""
    said = [
        f"{row['case_id']} ({textwrap.shorten(row['reason'], 200, placeholder=' …')})"
        for row in failed[:NAMED_FAILURES]
    ]
    if len(failed) > NAMED_FAILURES:
        said.append(f"and {len(failed) - NAMED_FAILURES} more")
    noun = "1 case" if len(failed) == 1 else f"{len(failed)} cases"
    return f"{noun} crashed or timed out: {'; '.join(said)}"


def forget_rows(folder: Path, case_id: str) -> None:
    """Take the rows of an interrupted try out of a part's tables, so that a repeat does not mix."""
    for path in folder.glob("*.jsonl"):
        rows = read_rows(path)
        if any(row.get("case_id") == case_id for row in rows):
            kept = [row for row in rows if row.get("case_id") != case_id]
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)


def _reason(summary: str, log: Path) -> str:
    """How the process ended, and the last line that it wrote."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return f"{summary}: {lines[-1].strip()}" if lines else summary


if sys.platform == "win32":  # the forking server and /proc are Linux's
    raise ImportError("hybridlab measures on Linux (Colab, WSL 2 and containers included)")
