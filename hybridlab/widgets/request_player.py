"""Player of a request: its audio, and what each arm said about it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from hybridlab import catalog
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import word_errors
from hybridlab.analysis.texts import CUT_SHORT, TEXTS
from hybridlab.audio import Samples
from hybridlab.reporting.labels import EMPTY, arm_of, seconds, text_of
from hybridlab.reporting.rows import complete_tables, is_first
from hybridlab.reporting.tables import model_name
from hybridlab.reporting.tables.strategy_comparison import same_answer
from hybridlab.units import counted
from hybridlab.widgets.html import framed, output, table

if TYPE_CHECKING:
    from hybridlab.experiments.session import Session

#: Experiments that serve a clip as it is and keep what was said.
EXPERIMENTS = ("setup", "baseline", "loading", "quality", "reference", "strategy_comparison")
#: Seconds of a long recording that the player holds: they travel inside the page.
PLAYED_S = 120.0


@complete_tables
def answers(
    trials: pd.DataFrame, cases: pd.DataFrame, *, clip_id: str, question: str
) -> pd.DataFrame:
    """One row per arm, or model alone, and text, in the order of the trials: `who, transcript,
    transcript_finish, answer, answer_finish, times` (how many trials) and `latency_s`, their median
    without first requests."""
    own = trials[trials["experiment"].isin(EXPERIMENTS)]
    own = own[(own["clip_id"] == clip_id) & (own["question"] == question)]
    own = own[own["transcript"].notna() | own["answer"].notna()]
    by_id = cases.drop_duplicates("case_id").set_index("case_id")
    who = [_who(row, by_id.loc[row["case_id"]]) for _, row in own.iterrows()]
    own = own.assign(
        who=pd.Series(who, index=own.index, dtype=str),
        latency_s=numbers(own, "latency_s").mask(is_first(own)),
    )
    told = [name for text in TEXTS for name in (text, f"{text}_finish")]
    groups = own.groupby(["who", *told], sort=False, dropna=False)
    found = groups.agg(times=("case_id", "size"), latency_s=("latency_s", "median"))
    return found.reset_index()


def _who(trial: pd.Series[Any], case: pd.Series[Any]) -> str:
    return model_name(case) if trial["experiment"] == "quality" else arm_of(trial)


def player_html(samples: Samples) -> str:
    """An audio player that holds the first `PLAYED_S` of the samples itself."""
    from IPython.display import Audio

    most = round(PLAYED_S * catalog.SAMPLE_RATE_HZ)
    player = Audio(samples[:most], rate=catalog.SAMPLE_RATE_HZ)._repr_html_()
    cut = f"<p>The player holds the first {PLAYED_S:g} s.</p>" if samples.size > most else ""
    return f"{player}{cut}"


def answers_html(rows: pd.DataFrame, *, reference: str, question: str, expected: str) -> str:
    """What should be said ('' where that is not known), and who said what; `rows` as `answers`
    has them."""
    facts = {"Reference": reference, "Question": question, "Expected answer": expected}
    words = (f"{name}: <b>{escape(words or 'none')}</b>" for name, words in facts.items())
    if rows.empty:
        shown = "<p>Nothing was said about this request: random weights have no text.</p>"
    else:
        shown = table(_cells(row, reference, expected) for _, row in rows.iterrows())
    return f"<p>{'<br>'.join(words)}</p>{shown}"


def _cells(row: pd.Series[Any], reference: str, expected: str) -> dict[str, str]:
    transcript, answer = text_of(row, "transcript"), text_of(row, "answer")
    endings = [CUT_SHORT.get(text_of(row, f"{text}_finish"), "") for text in TEXTS]
    counts = []
    if reference and transcript and not endings[0]:
        counts = word_errors([reference], [transcript])
    mark = ""
    if answer and expected and not endings[1]:
        mark = "✓ " if same_answer(expected, answer) else "✗ "
    return {
        "who": escape(row["who"]),
        "transcript": escape(transcript or EMPTY) + _how(endings[0]),
        "words wrong": f"{counts[0][0]} of {counts[0][1]}" if counts else EMPTY,
        "answer": mark + escape(answer or EMPTY) + _how(endings[1]),
        "trials": str(row["times"]),
        "median latency": seconds(row["latency_s"]),
    }


def _how(ending: str) -> str:
    return f" <i>({ending})</i>" if ending else ""


def request_player(session: Session) -> Any:
    """A menu of this notebook's requests, the audio of the chosen one, and what was said."""
    import ipywidgets as widgets

    trials, cases = session.table("trials"), session.table("cases")
    clips = {clip.id: clip for clip in session.clips}
    asked = trials[trials["experiment"].isin(EXPERIMENTS) & trials["clip_id"].isin(list(clips))]
    asked = asked.drop_duplicates(["clip_id", "question"])
    if asked.empty:
        return widgets.HTML("<p>No request was served, so there is nothing to play.</p>")
    view = output()
    labels = (
        f"{row['clip_id']} · {row['audio_s']:.1f} s · {row['question']}"
        for _, row in asked.iterrows()
    )
    menu = widgets.Dropdown(
        options=list(zip(labels, range(len(asked)), strict=True)),
        description=counted(len(asked), "request"),
        layout={"width": "min(100%, 640px)"},
        style={"description_width": "90px"},
    )

    def update(_: Any = None) -> None:
        row = asked.iloc[menu.value]
        clip, question = clips[row["clip_id"]], str(row["question"])
        rows = answers(trials, cases, clip_id=clip.id, question=question)
        expected = text_of(row, "expected_answer")
        said = answers_html(rows, reference=clip.text or "", question=question, expected=expected)
        view.value = framed(player_html(clip.samples()), said)

    menu.observe(update, names="value")
    update()
    return widgets.VBox([menu, view])
