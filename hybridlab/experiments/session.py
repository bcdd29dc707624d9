"""What a notebook holds: validated parameters, the device, the run's part, the clips."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hybridlab import catalog
from hybridlab.audio import Clip, Clips, load_clips
from hybridlab.config.params import FROM_MANIFEST, Params, TokenLimit
from hybridlab.config.preset_files import AUTO, NONE, colab_lack
from hybridlab.devices import Device, card_of, resolve_device
from hybridlab.devices.memory_limit import is_larger
from hybridlab.errors import RunFolderError, UnavailableError, WeightsError
from hybridlab.experiments.case import Case, CaseObserver, RequestSpec
from hybridlab.experiments.case_runner import CaseRunner, failures
from hybridlab.experiments.live_report import show_report
from hybridlab.experiments.run_weights import fetch_printer, keep, provide
from hybridlab.models.base import ModelSpec
from hybridlab.models.checkpoint import commits_of, pinned
from hybridlab.models.pair import Pair, asr_spec, pair_of, specs_of
from hybridlab.reporting.tables.shown import use_in_notebook
from hybridlab.results.manifest import sha256_of
from hybridlab.results.run_folder import NotebookRun, open_part
from hybridlab.results.schema import was_stopped
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GB

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_QUESTION = "What is said in this audio?"


@dataclass
class Session:
    """One notebook at work. Open it with `Session.open(Params.from_namespace(globals()))`."""

    params: Params
    device: Device
    part: NotebookRun
    runner: CaseRunner
    #: Of each repository of weights the commit that this run measures.
    commits: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        params: Params,
        *,
        view: Callable[[Params, Device], CaseObserver | None] | None = None,
    ) -> Session:
        """Resolve the device and open this notebook's part of the run.

        `view` makes a live view of running cases (`hybridlab.widgets.live_view`).
        """
        use_in_notebook()
        try:
            device = resolve_device(params.device)
        except UnavailableError as error:
            _skip(open_part(params, device=params.device), str(error))
        _say_defaults(params, device)
        gpu = {} if device.is_host else {"gpu": device.facts()}
        part = open_part(params, device=device.name, inputs=gpu)
        if part.earlier_words:
            print(part.earlier_words)  # noqa: T201 - the cell's only trace of it
        runner = CaseRunner(
            part=part,
            timeout_s=params.timeout_s,
            inline=params.inline,
            view=view(params, device) if view else None,
        )
        return cls(params, device, part, runner)

    # ------------------------------------------------------------------------------- preflight

    def preflight(self) -> None:
        """Fetch the weights that this notebook's cases load, and refuse what cannot work here
        before any model is loaded: dtypes, weights, audio.

        What the machine lacks, or cannot fetch, is recorded as skipped; what the reader can change
        is raised.
        """
        try:
            if self.params.measures:
                self.pair.check()
                self._provide()
        except UnavailableError as error:
            self.skip(str(error))
        except WeightsError as error:
            self.part.close("failed", str(error))
            raise
        _ = self.clips
        if self.params.pocket_words:
            print(f"note: {self.params.pocket_words}")  # noqa: T201 - beside the texts it is about

    def _provide(self) -> None:
        """Without the pair there is nothing to measure; without another model its cases are
        skipped."""
        llm, asr, *others = specs_of(self.params)
        try:
            self._fetch([llm, asr, *others])
            return
        except WeightsError:  # told below, of the models that lack
            pass
        try:
            self._fetch([llm, asr])
        except WeightsError as error:
            self.skip(str(error))
        for spec in others:
            try:
                self._fetch([spec])
            except WeightsError as error:
                print(f"its cases are skipped: {error}")  # noqa: T201 - said before they are

    def _fetch(self, specs: list[ModelSpec]) -> None:
        run_dir, listener = self.part.run_dir, fetch_printer(live=not self.params.headless)
        found = provide(specs, run_dir, listener=listener)
        keep(found, run_dir)
        self.commits |= commits_of(found)

    def skip(self, reason: str) -> NoReturn:
        """Record that this notebook cannot run here: leave quietly when headless, else raise."""
        _skip(self.part, reason)

    def lacks_clock(self, what: str) -> bool:
        """Whether the device has no clock for `what`, which is about times alone; says so then."""
        if not self.device.keeps_times:
            print(f"left out: {what} ({NO_TIMES})")  # noqa: T201 - the cell's only trace of it
        return not self.device.keeps_times

    # ------------------------------------------------------------------------------- the pair

    @cached_property
    def clips(self) -> Clips:
        """The reader's clips, or the shipped ones; says what had to be left out of them."""
        clips = load_clips(self.params.audio)
        audio = {clip.id: sha256_of(Path(clip.path)) for clip in clips}
        if self.part.earlier.get("audio", audio) != audio:
            raise RunFolderError(
                f"the audio is not that of the rows in {self.part.folder}; choose another "
                "output_dir, or give the audio back"
            )
        self.part.inputs["audio"] = audio
        if clips.left_out:
            self.part.inputs["audio_left_out"] = list(clips.left_out)
        for line in clips.left_out_lines():
            print(f"audio left out: {line}")  # noqa: T201 - the cell's trace of it
        return clips

    @cached_property
    def pair(self) -> Pair:
        """The models that the parameters name."""
        return pair_of(self.params, self.device)

    @property
    def llm(self) -> ModelSpec:
        return self.pair.llm

    @property
    def asr(self) -> ModelSpec:
        return self.pair.asr

    def asr_spec(self, model: str, *, backend: str, weights: str, dtype: str) -> ModelSpec:
        """Another recogniser; `weights` are those of released ones."""
        source = catalog.source_of(model, weights)
        return asr_spec(
            self.params, self.device, model, backend=backend, weights=source, dtype=dtype
        )

    @property
    def card(self) -> catalog.Card | None:
        """The card that verdicts speak of: the one asked for, else the one that is here."""
        if self.params.card != "auto":
            return catalog.card(self.params.card)
        return card_of(self.device)

    @property
    def budget_bytes(self) -> int:
        """Bytes that a case may take: what is free now, or less if the reader says so."""
        limit_gb = float(getattr(self.params, "memory_budget_gb", 0.0))
        free = self.device.free_bytes()
        return min(free, int(limit_gb * GB)) if limit_gb else free

    @property
    def memory_limit_bytes(self) -> int:
        """Memory of the card that the run is limited to; 0 without a limit, and on a card that is
        no larger."""
        name = self.params.memory_limit
        n_bytes = catalog.card(name).usable_bytes if name else 0
        return n_bytes if n_bytes and is_larger(self.device, n_bytes) else 0

    # ------------------------------------------------------------------------------ workloads

    def requests(self, count: int, *, max_audio_s: float | None = None) -> tuple[RequestSpec, ...]:
        """`count` requests over the clips in turn; a clip that comes again gets its next
        question."""
        clips = [c for c in self.clips if max_audio_s is None or c.audio_s <= max_audio_s]
        if not clips:
            clips = [min(self.clips, key=lambda clip: clip.audio_s)]
        return tuple(
            _request(clips[i % len(clips)], i // len(clips) + i % len(clips), self.params.question)
            for i in range(count)
        )

    def case(self, experiment: str, **changes: Any) -> Case:
        """A case of this notebook's pair and parameters; `changes` replace fields of `Case`. A
        strategy without a recogniser gets none."""
        fields: dict[str, Any] = {
            "experiment": experiment,
            "work": "serve",
            "strategy": "sequential",
            "variant": "plain",
            "llm": self.llm,
            "asr": self.asr,
            "device": self.device.name,
            "requests": self.requests(self.params.trials),
            "warmup": self.params.warmup,
            "language": self.params.language,
            "max_new_tokens": _limit(self.params.max_new_tokens),
            "asr_max_new_tokens": _limit(self.params.asr_max_new_tokens),
            "memory_limit_bytes": self.memory_limit_bytes,
            "max_other_cpu_share": self.params.max_other_cpu_share,
        }
        fields |= changes
        strategy = catalog.STRATEGIES.get(fields["strategy"])
        if strategy is not None and not strategy.has_asr:
            fields["asr"] = None
        fields |= {n: pinned(fields[n], self.commits) for n in ("llm", "asr") if fields[n]}
        fields["candidates"] = tuple(
            pinned(spec, self.commits) for spec in fields.get("candidates", ())
        )
        return Case(**fields)

    def fixed_work(self, tokens: int, asr: ModelSpec) -> dict[str, int]:
        """Fields of a case in which models with random weights decode so many tokens; those with
        words keep the run's own limits."""
        models = {"max_new_tokens": self.llm, "asr_max_new_tokens": asr}
        return {name: tokens for name, spec in models.items() if not spec.has_text}

    # -------------------------------------------------------------------------------- results

    def table(self, name: str) -> pd.DataFrame:
        """The part's rows so far."""
        return self.part.table(name)

    def figure(self, figure: Any, name: str, *, alt: str = "") -> Any:
        """Save a figure as PNG and SVG in the run and return it as an image with alt text."""
        from IPython.display import Image

        from hybridlab.reporting.figures import save

        paths = save(figure, self.part.figures, f"{self.part.notebook[:2]}-{name}")
        return Image(filename=str(paths[0]), embed=True, alt=alt or name.replace("-", " "))

    def close(self) -> None:
        """End the notebook: every case that was run has its row, whatever its status. With cases
        that the reader has stopped it is not complete, and can be gone on with. A live notebook
        ends with the report of its run."""
        rows = self.part.finished_cases().values()
        failed = failures(rows)
        stopped = [row["case_id"] for row in rows if was_stopped(row)]
        words = "1 case was" if len(stopped) == 1 else f"{len(stopped)} cases were"
        lack = f"{words} stopped by the reader: {', '.join(stopped)}" if stopped else ""
        self.part.close("failed" if failed or lack else "completed", failed or lack)
        if not self.params.headless:
            show_report(self.part.run_dir)
        if failed:
            again = "repeat with --resume" if self.params.headless else "run this notebook again"
            raise UnavailableError(f"{failed}; logs are in {self.part.folder / 'cases'}; {again}")
        if stopped:
            where = f'set output_dir = "{self.part.run_dir}" and ' if self.params.output_dir else ""
            print(  # noqa: T201 - the notebook's last output
                f"{words} stopped; all others are kept. To run what is missing, {where}run this "
                "notebook again."
            )


def _limit(tokens: TokenLimit) -> int | None:
    return None if tokens == "auto" else tokens


def _say_defaults(params: Params, device: Device) -> None:
    """Where the parameters come from, if not from the notebook's own cell; and what a Colab without
    a GPU misses."""
    if params.preset not in (AUTO, NONE):
        print(  # noqa: T201 - the reader's cell should say what it runs
            f"preset {params.preset} fills what was left at its default: {params.llm_model} "
            f"({params.llm_weights}) and Whisper {params.asr_model} "
            f'({params.asr_weights}) on {params.device}; preset = "" turns that off'
        )
    elif device.is_host and (lack := colab_lack()):
        print(lack)  # noqa: T201


def _skip(part: NotebookRun, reason: str) -> NoReturn:
    part.skip(reason)
    if part.params.headless:
        print(f"skipped: {reason}")  # noqa: T201 - the notebook's last output
        sys.exit(0)
    raise UnavailableError(reason)


def _request(clip: Clip, number: int, question: str) -> RequestSpec:
    answer, question_type = None, ""
    if question == FROM_MANIFEST and clip.questions:
        chosen = clip.questions[number % len(clip.questions)]
        question, answer, question_type = chosen.text, chosen.answer, chosen.kind
    return RequestSpec(
        id=f"{clip.id}-{question_type or 'q'}-{number}",
        clip_id=clip.id,
        path=str(Path(clip.path).absolute()),
        audio_s=clip.audio_s,
        reference=clip.text,
        question=question or DEFAULT_QUESTION,
        expected_answer=answer,
        question_type=question_type,
    )
