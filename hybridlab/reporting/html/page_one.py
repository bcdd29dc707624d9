"""Page one: the question's answer on one page. A sentence, how to share, a figure, three numbers,
where the numbers are from, what the run cannot tell, and what to type next."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from hybridlab import catalog
from hybridlab.analysis.case_status import invalid_advice, invalid_words
from hybridlab.analysis.pick import serve_options
from hybridlab.analysis.recommendation import Recommendation, Requirements, recommend
from hybridlab.analysis.which_fits import TARGET, WhichFits, which_fits
from hybridlab.audio import is_shipped
from hybridlab.catalog import Card
from hybridlab.config.params import NOTEBOOKS
from hybridlab.config.preset_files import presets
from hybridlab.reporting import figures, fit_words, labels
from hybridlab.reporting.figures.which_fits import draw
from hybridlab.reporting.findings import overflow_findings
from hybridlab.reporting.html.figures import Picture, picture
from hybridlab.reporting.html.run_info import outcome
from hybridlab.reporting.html.view_model import Run
from hybridlab.reporting.labels import text_of
from hybridlab.reporting.rows import CONTROL, RACE, cases_of, present, race_standings
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import counted

#: Why nothing is said of how to share, and the notebooks that race the ways.
NOT_RACED = "no two ways were raced against each other"
RACES = "04,05,06"
#: Words, and a command under them ('' without one).
Step = tuple[str, str]


@dataclass(frozen=True)
class Sharing:
    """How the two should share the device: the way in plain words, what speaks for it, and where
    nothing was raced the words and the command that race them."""

    advice: str
    evidence: str
    step: Step | None = None


@dataclass(frozen=True)
class PageOne:
    """What the template shows, from the top to the bottom."""

    cautions: list[str]
    sentence: str
    sharing: Sharing
    picture: Picture
    #: What the figure says in words, for a screen that it does not go on: pair, words, whether the
    #: pick.
    rows: list[tuple[str, str, bool]]
    numbers: list[fit_words.Card]
    evidence: str
    cannot: list[str]
    steps: list[Step]


def page_one(run: Run) -> PageOne:
    """The answer of a run, and what limits it."""
    found = fits_of(run)
    chosen = recommend(run.cases, run.trials, requirements(run)) if len(run.cases) else None
    return PageOne(
        cautions=cautions(run, found),
        sentence=_sentence(found),
        sharing=sharing(run, chosen),
        picture=_drawn(found),
        rows=[(row.name, fit_words.row_words(row), row == found.pick) for row in found.rows],
        numbers=fit_words.three_numbers(found),
        evidence=evidence(run, found, chosen),
        cannot=cannot_tell(run, found, chosen),
        steps=steps(run, found),
    )


def answer(run: Run) -> str:
    """The sentence of page one by itself, with its full stop."""
    return _sentence(fits_of(run))


def _sentence(found: WhichFits) -> str:
    return f"{fit_words.headline(found)}."


# ------------------------------------------------------------------------------------ what fits


def fits_of(run: Run) -> WhichFits:
    """From this run where a released Voxtral ran in it, else from one on a simulated card in its
    folder, else predicted for the card that was asked for."""
    found = [which_fits(one.cases, card_of(one)) for one in (run, *run.inner)]
    return next((one for one in found if one.n_run), found[0])


def card_of(run: Run) -> Card | None:
    """The card that the run's bytes speak of, as far as the catalog knows it."""
    for name in ("card", "memory_limit"):
        asked = text_of(run.params, name)
        if asked in catalog.CARDS:
            return catalog.card(asked)
    capacity = pd.to_numeric(present(run.cases, "capacity_bytes")).max()
    title = text_of(run.origin("machine") or {}, "gpu")
    if title and pd.notna(capacity):
        return catalog.card_titled(title, int(capacity))
    known = text_of(run.verdict, "card")
    return catalog.CARDS.get(known)


def _drawn(found: WhichFits) -> Picture:
    with tempfile.TemporaryDirectory() as folder:
        path, _ = figures.save(draw(found, title=False), Path(folder), "which-fits")
        return replace(picture(path, budget=None), alt=fit_words.headline(found))


# --------------------------------------------------------------------------------------- sharing


def requirements(run: Run) -> Requirements:
    """What a way of sharing had to keep, from the parameters of 07_verdict."""
    given = run.params | dict(run.parts.get("07_verdict", {}).get("params") or {})
    names = ("min_margin_bytes", "max_p95_s", "max_wer")
    return Requirements.asked(**{name: float(given[name]) for name in names if given.get(name)})


def sharing(run: Run, chosen: Recommendation | None) -> Sharing:
    """Which way, by how much, and from how many cases; or why that is not told."""
    lost = invalid_words(cases_of(run.cases, RACE))
    race = ("Race the ways to share:", f"hybridlab run {_preset(run)} --only {RACES}")
    if chosen is None:
        return Sharing(f"not told by this run: {lost or NOT_RACED}.", "", None if lost else race)
    advice, alone = f"{_way(chosen)}.", not chosen.runner_up
    if alone:
        advice = f"not told by this run, which measured one way alone: {advice}"
    elif chosen.few:
        advice = f"too few rounds to tell; so far: {advice}"
    firm = f"a tie with {chosen.runner_up}, which takes more memory; " if chosen.tie else ""
    toy = "; a released pair may differ" if _ran_toys(run) else ""
    known = "simulated" if chosen.by_bytes else "measured"
    n = f"n = {counted(chosen.n, 'case')}"
    evidence = f"{_figure(run, chosen)}; {firm}{n}, {known} with {chosen.pair}{toy}."
    evidence = f"{evidence} {labels.capital(lost)}." if lost else evidence
    return Sharing(advice, evidence, race if alone else None)


def _way(chosen: Recommendation) -> str:
    """'Keep both loaded and let them take turns (sequential/plain)'."""
    facts = catalog.STRATEGIES[chosen.strategy]
    variant = facts.variants.get(chosen.variant)  # an older run may have had others
    manner = variant.manner if variant else ""
    words = f"{facts.advice}, {manner}" if manner else facts.advice
    return f"{words} ({labels.arm_of(asdict(chosen))})"


def _figure(run: Run, chosen: Recommendation) -> str:
    """'A request takes 0.86 (95 % interval 0.84 to 0.88) times as long as where …'."""
    if chosen.by_bytes:
        return f"Takes the least memory, {labels.n_bytes(chosen.peak_bytes)}; {NO_TIMES}"
    arm = labels.arm_of(asdict(chosen))
    if arm == CONTROL:
        return f"A request takes {labels.seconds(chosen.median_s)}"
    own = next(one for one in race_standings(run.cases, run.trials) if one.arm == arm)
    low, high = own.relative.low, own.relative.high
    sure = f" (95 % interval {low:.2f} to {high:.2f})" if math.isfinite(low) else ""
    ratio = f"{own.relative.value:.2f}{sure}"
    return f"A request takes {ratio} times as long as where they take turns ({CONTROL})"


def _preset(run: Run) -> str:
    """What the run was made from where that is a preset of the lab, else the demo."""
    own = text_of(run.manifest, "preset")
    return own if own in presets() else "pocket"


# ---------------------------------------------------------------------------------- what limits it


def cautions(run: Run, found: WhichFits) -> list[str]:
    """What to know before anything on the page is believed."""
    said = [_toys(run, found), invalid_advice(run.cases), _missing(run), _other_audio(run)]
    return [labels.capital(words) for words in [*said, *overflow_findings(run.cases)] if words]


def _toys(run: Run, found: WhichFits) -> str:
    """That the pair of the run is a toy."""
    if not _ran_toys(run):
        return ""
    times = ", and every time on these pages, were" if has_clock(run.cases) else " was"
    return (
        f"what fits is {found.evidence} for the released models. How to share them{times} found "
        f"with toys on {_devices(run)}: pocket models that know spoken digits alone."
    )


def _devices(run: Run) -> str:
    """'the CPU', 'the CPU and simulated:t4': what the cases of the run ran on."""
    names = sorted({str(name) for name in present(run.cases, "device")})
    return " and ".join("the CPU" if name == "cpu" else name for name in names)


def _ran_toys(run: Run) -> bool:
    toys = {name for name, model in catalog.VOXTRALS.items() if model.shipped}
    return not run.cases.empty and bool(set(present(run.cases, "llm_model")) & toys)


def _missing(run: Run) -> str:
    lost = [name for name in NOTEBOOKS if outcome(run, name)[0] not in ("completed", "skipped")]
    words = "this run is a part of the suite; notebooks without a result"
    return f"{words}: {', '.join(lost)}." if lost else ""


def _other_audio(run: Run) -> str:
    """That models which know spoken digits alone met other audio."""
    asked = (run.params, *(dict(part.get("params") or {}) for part in run.parts.values()))
    if all(is_shipped(text_of(given, "audio")) for given in asked):
        return ""
    ran = run.cases[run.cases["status"] != "skipped"]
    models = [*present(ran, "llm_model"), *present(ran, "asr_model")]
    words = catalog.pocket_words(*map(str, models))
    return f"{words}." if words else ""


def evidence(run: Run, found: WhichFits, chosen: Recommendation | None) -> str:
    """Where the numbers of this page are from, once."""
    said = [f"bytes of {words}" for words in fit_words.evidence(found)]
    if chosen is not None and not chosen.by_bytes:
        said.append(f"times are measured on {_devices(run)}")
    return labels.capital("; ".join(said)) + "."


def cannot_tell(run: Run, found: WhichFits, chosen: Recommendation | None) -> list[str]:
    """What this run leaves open, the most important first."""
    title = found.card.title if found.card else "this GPU"
    said = []
    if found.evidence != "measured":
        said.append(f"How fast anything is on a real {title}: nothing ran on one.")
    if found.evidence == "predicted":
        said.append("Whether the predicted bytes hold there.")
    if chosen is None and has_clock(run.cases):
        said.append("How the two should share the device.")
    weights = {
        str(name) for role in ("llm", "asr") for name in present(run.cases, f"{role}_weights")
    }
    if weights and not weights & {"hub", "local"}:
        said.append("What released models say, and how many words they get wrong.")
    return said


def steps(run: Run, found: WhichFits) -> list[Step]:
    """What to type next."""
    said: list[Step] = []
    if invalid_words(run.cases):
        again = f"--output {run.folder.parent.name}/{run.folder.name} --resume"
        said.append(("Close other programs and repeat what is invalid: the same line with", again))
    if found.pick is not None and found.pick.plan is not None:
        served = " ".join(serve_options(found.pick.plan))
        said.append(("Serve this pair:", f"hybridlab {served}"))
    card = found.card.name if found.card else TARGET
    if found.evidence != "measured" and card == TARGET:
        said.append(("Measure it on a T4, as Colab has one:", "hybridlab run colab-t4"))
    said.append(
        ("Ask for another card or a longer audio:", f"hybridlab plan --card {_other(card)}")
    )
    return said


def _other(card: str) -> str:
    return "l4 --audio-s 120" if card == TARGET else f"{TARGET} --audio-s 120"
