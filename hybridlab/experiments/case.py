"""A case: a picklable description, run in a fresh process, whose only results are files."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from hybridlab import catalog
from hybridlab.catalog import LoadOrder
from hybridlab.devices import Device, planned_card
from hybridlab.models.base import ModelSpec
from hybridlab.planner import Request as PlannedRequest
from hybridlab.results.run_folder import NotebookRun

Work = Literal[
    "serve",
    "reference",
    "poisson_arrivals",
    "interference",
    "limit",
    "limit_search",
    "headroom",
    "fallback",
    "soak",
]
#: Options of a case that stand as columns of `cases`.
OPTION_COLUMNS = (
    *("scaling_kind", "scaling_value"),
    *("limit_kind", "audio_s"),
    *("mitigation", "first_cycle", "cycles"),
    *("rate_rps", "load"),
)


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
    question_type: str
    #: The clip is repeated, or cut, to `audio_s` seconds.
    resized: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """One pair x strategy x variant x workload."""

    experiment: str
    work: Work
    strategy: str
    variant: str
    llm: ModelSpec
    asr: ModelSpec | None
    device: str
    requests: tuple[RequestSpec, ...]
    warmup: int = 1
    language: str = "en"
    #: Of the LLM. None: of a transcript what its audio may need, of an answer
    #: `catalog.ANSWER_TOKENS`.
    max_new_tokens: int | None = None
    #: Of the recogniser, a window. None: all that it has room for; of random weights
    #: `catalog.FIXED_TOKENS_PER_WINDOW`.
    asr_max_new_tokens: int | None = None
    round: int = 0
    #: Take the memory of one request apart by phase; its latency is then not one to quote.
    phases: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    load_order: LoadOrder = "llm-first"
    #: Other processes may use this share of the processors before the case's times are invalid.
    max_other_cpu_share: float = 1.0
    #: A smaller card's memory that the device plays; 0 for its own.
    memory_limit_bytes: int = 0
    #: Recognisers from large to small, the case's own first. Empty: no stepping down.
    candidates: tuple[ModelSpec, ...] = ()

    @property
    def answer_tokens(self) -> int:
        """Most tokens of an answer."""
        return self.max_new_tokens or catalog.ANSWER_TOKENS

    @property
    def asr_tokens(self) -> int | None:
        """Most tokens of a window by the recogniser; None where it ends by itself before it has no
        more room."""
        if self.asr is None or self.asr.has_text:
            return self.asr_max_new_tokens
        return self.asr_max_new_tokens or catalog.FIXED_TOKENS_PER_WINDOW

    def predicted_request(
        self, audio_s: float = catalog.WINDOW_S, batch: int = 1
    ) -> PlannedRequest:
        """A request of this case as the planner takes it, with as many tokens as dense speech has
        where texts end by themselves."""
        new_tokens = self.answer_tokens
        if self.asr is None and self.max_new_tokens is None:  # the LLM transcribes as well
            new_tokens = max(new_tokens, catalog.transcript_tokens(audio_s))
        return PlannedRequest(
            audio_s=audio_s,
            batch=batch,
            new_tokens=new_tokens,
            asr_new_tokens=self.asr_tokens or catalog.MOST_TRANSCRIPT_TOKENS_PER_WINDOW,
        )

    @property
    def id(self) -> str:
        """Readable, and the same for the same description: how a resumed run finds its work."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        size = self.asr.model if self.asr else "none"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.experiment}-{self.strategy}-{self.variant}-{size}-r{self.round}-{digest}"

    def card_on(self, device: Device) -> catalog.Card:
        """The card that the case's bytes speak for on this device: the one that it stands in for,
        or its own."""
        return catalog.card(self.llm.card) if self.llm.card else planned_card(device)

    def common(self) -> dict[str, Any]:
        """What stands in every row of this case, in whatever table."""
        return {
            "case_id": self.id,
            "experiment": self.experiment,
            "memory_limited": self.memory_limit_bytes > 0,
        }

    def identity(self) -> dict[str, Any]:
        """The columns of `cases` that say what was measured."""
        return {
            **self.common(),
            "strategy": self.strategy,
            "variant": self.variant,
            "round": self.round,
            **_columns("llm", self.llm, "model", "weights", "dtype"),
            "attention": self.llm.attention,
            "decoding": self.llm.decoding,
            "load_order": self.load_order,
            "load_path": self.llm.load_path,
            "card": self.llm.card or None,
            **_columns("asr", self.asr, "model", "backend", "weights", "dtype"),
            "asr_decoding": self.asr and ("timestamps" if self.asr.timestamps else "plain"),
            **{name: self.options[name] for name in OPTION_COLUMNS if name in self.options},
        }


def _columns(role: str, spec: ModelSpec | None, *names: str) -> dict[str, Any]:
    """Columns of the model of this role; empty without one."""
    return {f"{role}_{name}": getattr(spec, name) if spec else None for name in names}


class CaseObserver(Protocol):
    """A live view of running cases, which may stop them."""

    @property
    def stopped(self) -> bool:
        """Whether no further case is wanted."""

    def watch(self, part: NotebookRun, case: Case, place: str) -> AbstractContextManager[Path]:
        """Around a case, `place` of the others ('3 of 12'): the file in which it is to tell what
        it does (`hybridlab.experiments.live_feed`). An interrupt inside stops it."""

    def tick(self, pid: int) -> bool:
        """Called four times a second while it runs; True stops it."""

    def ended(self, row: Mapping[str, Any]) -> None:
        """What became of it: its row of `cases`."""


if sys.platform == "win32":  # the forking server and /proc are Linux's
    raise ImportError("hybridlab measures on Linux (Colab, WSL 2 and containers included)")
