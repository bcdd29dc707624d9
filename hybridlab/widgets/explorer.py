"""The planner with controls: what would another pair take, and was it measured or simulated? No
torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any

from hybridlab import catalog, planner
from hybridlab.analysis.pick import (
    DEFAULT_MARGIN_GB,
    checked_margin_bytes,
    pick,
    recognizer_name,
)
from hybridlab.devices import CpuDevice, card_of
from hybridlab.errors import ParameterError
from hybridlab.planner.limits import longest_audio_s
from hybridlab.planner.memory_plan import Fit, MemoryByOwner, fit_of
from hybridlab.reporting.labels import FIT_SIGNS, MOMENTS, percent
from hybridlab.reporting.memory_stack import planned_stack
from hybridlab.units import counted, format_bytes
from hybridlab.widgets.bars import Bar, bars_html
from hybridlab.widgets.html import framed, output
from hybridlab.widgets.measured_points import Combination, Point, reference_points, run_points

if TYPE_CHECKING:
    from hybridlab.experiments.session import Session

#: Owners that a measured peak does not have: an allocator's own peak stands without them.
UNSEEN = ("context", "workspaces", "allocator cache")

#: Kernels that every card has; `expanded_kv` keeps the scores of grouped heads out of memory.
KERNELS: tuple[catalog.Attention, ...] = ("auto", "expanded_kv", "math")


# ------------------------------------------------------------------------------------ the choice


@dataclass(frozen=True, kw_only=True)
class Choice(Combination):
    """What the controls say."""

    beams: int
    attention: catalog.Attention = "auto"
    margin_gb: float = DEFAULT_MARGIN_GB

    @property
    def margin_bytes(self) -> int:
        return checked_margin_bytes(self.margin_gb)

    def check(self) -> None:
        """`ParameterError` for what the planner would predict but nothing would run."""
        card = card_named(self.card)
        for name, dtype in (("Voxtral", self.llm_dtype), ("Whisper", self.dtype)):
            if dtype not in ("int8", "int4", *card.native_dtypes):
                raise ParameterError(
                    f"{card.title} does not compute in {dtype}; for {name} choose one of: "
                    f"{', '.join(card.native_dtypes)}"
                )
        if card is catalog.HOST and self.llm_dtype in ("int8", "int4"):
            raise ParameterError(
                f"Voxtral in {self.llm_dtype} needs a CUDA device (bitsandbytes); choose "
                "float32 or bfloat16"
            )

    def moments(self, *, audio_s: float | None = None) -> dict[str, MemoryByOwner]:
        """The planner's owners at each moment of the chosen way."""
        return planner.ledger_by_strategy(
            card_named(self.card),
            catalog.whisper(self.whisper),
            catalog.voxtral(self.voxtral),
            backend=self.backend,
            dtype=self.dtype,
            llm_dtype=self.llm_dtype,
            request=self.request(audio_s or self.audio_s),
            attention=self.attention,
        )[self.way]

    def worst(self, *, audio_s: float | None = None) -> planner.Estimate:
        moments = self.moments(audio_s=audio_s).values()
        return planner.largest([planner.total(list(owners.values())) for owners in moments])

    def longest_audio_s(self) -> float:
        """Longest audio (s) in whole windows that is expected to leave the margin; 0 where none
        does."""
        most = capacity_of(self.card).expected - self.margin_bytes
        return longest_audio_s(lambda s: self.worst(audio_s=s).expected <= most)

    def pick(self) -> planner.PairPlan | None:
        """The Whisper for this card, Voxtral and request."""
        return pick(
            card_named(self.card),
            self.request(self.audio_s),
            self.margin_bytes,
            attention=self.attention,
            voxtral=catalog.voxtral(self.voxtral),
            llm_dtype=self.llm_dtype,
        )

    def request(self, audio_s: float) -> planner.Request:
        return planner.Request(audio_s=audio_s, beams=self.beams, batch=self.batch)

    def matches(self, point: Point) -> bool:
        """Whether this was measured: on this card, these models and dtypes, this way, as many
        windows and rows, one beam."""
        whisper = () if self.way == "solo" else ("whisper", "backend", "dtype")
        names = ("card", "voxtral", "llm_dtype", "way", "batch", "windows", *whisper)
        same = all(getattr(self, name) == getattr(point, name) for name in names)
        return same and self.beams == 1 and self.attention == "auto"


def card_named(name: str) -> catalog.Card:
    """A card of the catalog, or this machine's CPU."""
    return catalog.HOST if name == catalog.HOST.name else catalog.card(name)


def capacity_of(name: str) -> planner.Estimate:
    """What the card is sold with; for the CPU what this machine has."""
    if name == catalog.HOST.name:
        return planner.Estimate.exact(CpuDevice().capacity_bytes())
    card = catalog.card(name)
    return planner.Estimate(card.usable_bytes, card.usable_bytes, card.usable_bytes_max)


# ------------------------------------------------------------------------------------- the view


def explorer_html(choice: Choice, points: Sequence[Point] = ()) -> str:
    """The predicted ledger against the capacity, what follows from it, and what ran there; one
    line where the combination is impossible."""
    try:
        choice.check()
        moments = choice.moments()
    except ParameterError as error:
        return f'<p role="alert"><b>Not possible:</b> {escape(str(error))}</p>'
    capacity = capacity_of(choice.card)
    own = [point for point in points if choice.matches(point)]
    top = max(own, key=lambda point: point.peak_bytes, default=None)
    bars = [_bar(moment, _stack(owners), "predicted") for moment, owners in moments.items()]
    if top is None:
        words = f"Not measured: every figure is <b>predicted</b>. {_elsewhere(choice, points)}"
    else:
        bars += [
            _bar(f"{name}, {top.run}", top.stacks[moment], top.evidence)
            for moment, name in MOMENTS.items()
            if top.stacks[moment]
        ]
        words = _error_words(choice, top, f"the highest of {counted(len(own), 'case')}")
    return framed(
        _verdict(choice, moments, capacity),
        bars_html(bars, capacity_bytes=capacity.expected),
        f"<p>{words}</p>",
    )


def _elsewhere(choice: Choice, points: Sequence[Point]) -> str:
    """How many cases other combinations have on this card, and how they are known."""
    kinds = Counter(point.evidence for point in points if point.card == choice.card)
    known = [f"{counted(count, 'case')} {kind}" for kind, count in sorted(kinds.items())]
    title = escape(card_named(choice.card).title)
    return f"Of other combinations on {title}: {' and '.join(known) or 'no case'}."


def _bar(label: str, parts: Mapping[str, float], evidence: str) -> Bar:
    words = f"{format_bytes(sum(parts.values()))} {evidence}"
    return Bar(label=label, parts=parts, note=words, measured=evidence != "predicted")


def _stack(owners: MemoryByOwner) -> dict[str, float]:
    return planned_stack({owner: size.expected for owner, size in owners.items()})


def _verdict(
    choice: Choice, moments: Mapping[str, MemoryByOwner], capacity: planner.Estimate
) -> str:
    needed = choice.worst()
    fit = fit_of(needed, capacity)
    worst = max(moments, key=lambda name: planner.total(list(moments[name].values())).expected)
    spread = f" ({format_bytes(needed.low)} to {format_bytes(needed.high)})"
    spread = spread if needed.low < needed.high else ""
    used = percent(needed.expected / capacity.expected)
    facts = {
        "predicted": f"{format_bytes(needed.expected)}{spread}, {worst}",
        "utilisation": f"{used} of {format_bytes(capacity.expected)}",
        "longest audio": _longest(choice.longest_audio_s()),
    }
    if choice.card != catalog.HOST.name:
        best = choice.pick()
        facts["pick with both resident"] = recognizer_name(best) if best else "none"
    cells = "".join(
        f'<span style="display:inline-block;margin-right:1.6em">{name}: <b>{words}</b></span>'
        for name, words in facts.items()
    )
    return f"<p>{_answer(fit, capacity.expected - needed.expected, choice)}</p><p>{cells}</p>"


#: Text that is read on white and on black paper alike is set in a block of its own colour.
_GOOD, _CLOSE, _BAD = "#0a6b3d", "#8a5a00", "#b3261e"


def _answer(fit: Fit, spare_bytes: float, choice: Choice) -> str:
    """'✓ fits by 2.50 GiB', '✗ lacks 3.10 GiB', or between the two what it depends on."""
    size = format_bytes(abs(spare_bytes))
    words = f"fits by {size}" if spare_bytes >= 0 else f"lacks {size}"
    tone = _GOOD if fit == "fits" else _BAD
    if fit == "depends":
        tone, words = _CLOSE, f"depends on the driver and the kernels: expected, it {words}"
    elif fit == "fits" and spare_bytes < choice.margin_bytes:
        lack = format_bytes(choice.margin_bytes - spare_bytes)
        tone, words = _CLOSE, f"{words}, {lack} less than the margin"
    return (
        f'<b class="verdict" style="padding:2px 8px;border-radius:4px;color:#fff;'
        f'background:{tone}">{FIT_SIGNS[fit]} {words}</b>'
    )


def _longest(seconds: float) -> str:
    if seconds == 0:
        return "none"
    most = seconds >= catalog.VOXTRAL_MAX_ANSWER_S
    return f"{seconds:g} s" + (", the most that Voxtral takes" if most else "")


def _error_words(choice: Choice, top: Point, of: str) -> str:
    """What ran, and the error of the prediction for the same audio."""
    seen = [
        sum(size.expected for owner, size in owners.items() if owner not in UNSEEN)
        for owners in choice.moments(audio_s=top.audio_s).values()
    ]
    baseline = top.process_baseline_bytes
    predicted = max(seen) + baseline
    process = f" with the process itself ({format_bytes(baseline)} before any model)"
    windows = f"{counted(top.windows, 'window')} of {catalog.WINDOW_S:g} s"
    process = process if baseline else " without context and cache, which no allocator's peak has"
    return (
        f"<b>{top.evidence.capitalize()}</b> ({escape(top.run)}, {of}, {windows}): peak "
        f"{format_bytes(top.peak_bytes)}. Predicted for that audio{process}: "
        f"{format_bytes(predicted)}; error "
        f"<b>{percent(top.peak_bytes / predicted - 1, signed=True)}</b>."
    )


# ---------------------------------------------------------------------------------- the controls


def pair_explorer(session: Session | None = None) -> Any:
    """Controls over `explorer_html`, with this run's points and the published ones."""
    import ipywidgets as widgets

    points = reference_points()
    if session is not None:
        here = card_of(session.device)
        points = run_points(session.part.run_dir, card=here.name if here else "") + points
    controls, view = _controls(), output()

    def update(_: Any = None) -> None:
        values = {name: control.value for name, control in controls.items()}
        if values["dtype"] is not None:  # between two backends nothing is chosen
            view.value = explorer_html(Choice(**values), points)

    def dtypes(change: Any) -> None:
        controls["dtype"].options = catalog.backend(change["new"]).dtypes

    def go(change: Any) -> None:
        for name, value in settings_of(points[change["new"]]).items():
            controls[name].value = value

    measured = _measured_menu(points)
    measured.observe(go, names="value")
    controls["backend"].observe(dtypes, names="value")
    for control in controls.values():
        control.observe(update, names="value")
    update()
    grid = widgets.GridBox(
        list(controls.values()),
        layout=widgets.Layout(grid_template_columns="repeat(auto-fit, minmax(300px, 1fr))"),
    )
    return widgets.VBox([grid, measured, view])


def settings_of(point: Point) -> dict[str, Any]:
    """The controls' values at which this point is shown as measured."""
    values = {field.name: getattr(point, field.name) for field in fields(Combination)}
    known = {name: value for name, value in values.items() if value != ""}
    audio_s = round(point.windows * catalog.WINDOW_S)
    return {**known, "audio_s": audio_s, "beams": 1, "attention": "auto"}


def _measured_menu(points: Sequence[Point]) -> Any:
    """Every combination that ran once, by the place of its first point; a choice goes there."""
    import ipywidgets as widgets

    places: dict[str, int] = {}
    for place, point in enumerate(points):
        if point.card:
            places.setdefault(point.title, place)
    return widgets.Dropdown(
        options=places.items(),
        value=None,
        description="go to a case",
        style={"description_width": "110px"},
        layout={"width": "min(100%, 640px)"},
    )


def _controls() -> dict[str, Any]:
    """One control per field of `Choice`."""
    import ipywidgets as widgets

    def menu(words: str, options: Iterable[str], value: str) -> Any:
        return widgets.Dropdown(options=list(options), value=value, description=words, style=wide)

    def slider(words: str, most: int, step: int = 1) -> Any:
        return widgets.IntSlider(
            value=step, min=step, max=most, step=step, description=words, style=wide
        )

    wide = {"description_width": "110px"}
    first = catalog.card("t4")
    best = pick(first)
    assert best is not None
    pocket = catalog.whisper("tiny"), catalog.voxtral("pocket")
    ways = planner.ledger_by_strategy(
        catalog.HOST, *pocket, backend="transformers", dtype="float32"
    )
    return {
        "card": menu("card", [*catalog.CARDS, catalog.HOST.name], first.name),
        "voxtral": menu("Voxtral", catalog.VOXTRALS, "mini-3b"),
        "llm_dtype": menu("Voxtral dtype", catalog.LLM_DTYPES, best.llm_dtype),
        "whisper": menu("Whisper", catalog.WHISPERS, best.asr_model),
        "backend": menu("backend", catalog.BACKENDS, best.asr_backend),
        "dtype": menu("Whisper dtype", catalog.backend(best.asr_backend).dtypes, best.asr_dtype),
        "audio_s": slider("audio (s)", int(catalog.VOXTRAL_MAX_ANSWER_S), 30),
        "beams": slider("beams", 8),
        "batch": slider("batch", 16),
        "way": menu("strategy", ways, "sequential"),
        "attention": menu("attention", KERNELS, "auto"),
        "margin_gb": widgets.BoundedFloatText(
            value=DEFAULT_MARGIN_GB,
            min=0,
            max=100,
            step=0.5,
            description="margin (GB)",
            style=wide,
        ),
    }
