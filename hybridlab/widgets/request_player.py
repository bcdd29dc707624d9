"""Player of a request: its audio, its features, and what each arm said about it."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from hybridlab import catalog
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import aligned_words
from hybridlab.audio import Clip, Samples
from hybridlab.reporting import figures
from hybridlab.reporting.labels import EMPTY, arm_of, counted, seconds, text_of
from hybridlab.reporting.rows import complete_tables, is_first
from hybridlab.reporting.tables import model_name, same_answer
from hybridlab.widgets.html import framed, output, table

if TYPE_CHECKING:
    from hybridlab.experiments.session import Session

#: Experiments that serve a clip as it is and keep what was said.
EXPERIMENTS = ("setup", "baseline", "loading", "quality", "reference", "strategy_comparison")
#: Seconds of a long recording that the player holds: they travel inside the page.
PLAYED_S = 120.0
_GONE = "background:#fde3d3;color:#7a2600;text-decoration:line-through"
_NEW = "background:#d6e9f8;color:#0b3d66;text-decoration:underline"


# ------------------------------------------------------------------------------------ transcripts


def marked_transcript(reference: str, transcript: str) -> str:
    """The transcript with its differences from the reference: words that are missing struck out,
    words that the reference has not underlined; each in a colour of its own as well."""
    seen = aligned_words(reference, transcript)
    if seen is None:
        return escape(transcript)
    expected, given = seen.references[0], seen.hypotheses[0]
    words = []
    for chunk in seen.alignments[0]:
        gone = " ".join(expected[chunk.ref_start_idx : chunk.ref_end_idx])
        new = " ".join(given[chunk.hyp_start_idx : chunk.hyp_end_idx])
        if chunk.type == "equal":
            words.append(escape(new))
            continue
        if gone:
            words.append(f'<del title="missing" style="{_GONE}">{escape(gone)}</del>')
        if new:
            words.append(f'<ins title="not in the reference" style="{_NEW}">{escape(new)}</ins>')
    return " ".join(words)


@complete_tables
def answers(
    trials: pd.DataFrame, cases: pd.DataFrame, *, clip_id: str, question: str
) -> pd.DataFrame:
    """One row per arm, or model alone, and text, in the order of the trials: `who, transcript,
    answer, times` (how many trials) and `latency_s`, their median without first requests."""
    own = trials[trials["experiment"].isin(EXPERIMENTS)]
    own = own[(own["clip_id"] == clip_id) & (own["question"] == question)]
    own = own[own["transcript"].notna() | own["answer"].notna()]
    by_id = cases.drop_duplicates("case_id").set_index("case_id")
    who = [_who(row, by_id.loc[row["case_id"]]) for _, row in own.iterrows()]
    own = own.assign(
        who=pd.Series(who, index=own.index, dtype=str),
        latency_s=numbers(own, "latency_s").mask(is_first(own)),
    )
    groups = own.groupby(["who", "transcript", "answer"], sort=False, dropna=False)
    found = groups.agg(times=("case_id", "size"), latency_s=("latency_s", "median"))
    return found.reset_index()


def _who(trial: pd.Series[Any], case: pd.Series[Any]) -> str:
    if trial["experiment"] == "quality":
        return model_name(case)
    return arm_of(trial)


# -------------------------------------------------------------------------------------- the view


def request_html(
    clip: Clip, question: str, expected: str | None, rows: pd.DataFrame, *, samples: Samples
) -> str:
    """Player, waveform and features, and a table of what was said."""
    return framed(
        player_html(samples),
        _picture(samples, clip.id),
        f"<p>Reference: <b>{escape(clip.text or 'none')}</b><br>Question: <b>{escape(question)}</b>"
        f"<br>Expected answer: <b>{escape(expected or 'none')}</b></p>",
        answers_table(rows, reference=clip.text, expected=expected),
    )


def player_html(samples: Samples) -> str:
    """An audio player that holds the first `PLAYED_S` of the samples itself."""
    from IPython.display import Audio

    most = round(PLAYED_S * catalog.SAMPLE_RATE_HZ)
    player = Audio(samples[:most], rate=catalog.SAMPLE_RATE_HZ)._repr_html_()
    cut = f"<p>The player holds the first {PLAYED_S:g} s.</p>" if samples.size > most else ""
    return f"{player}{cut}"


def _picture(samples: Samples, name: str) -> str:
    figure = figures.request(samples, name=name)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor="white")
    alt = escape(" ".join(figure.get_suptitle().split()))
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{data}">'


def answers_table(rows: pd.DataFrame, *, reference: str | None, expected: str | None) -> str:
    """Who said what, with the differences from the reference marked and the answers judged; `rows`
    as `answers` has them."""
    if rows.empty:
        return "<p>Nothing was said about this request: random weights have no text.</p>"
    return (
        f'<p><del style="{_GONE}">struck out</del>: missing; <ins style="{_NEW}">underlined</ins>: '
        "not in the reference. Case and punctuation do not count.</p>"
        f"{table(_cells(row, reference, expected) for _, row in rows.iterrows())}"
    )


def _cells(row: pd.Series[Any], reference: str | None, expected: str | None) -> dict[str, str]:
    transcript, answer = text_of(row, "transcript"), text_of(row, "answer")
    shown, wrong, judged = escape(transcript or EMPTY), EMPTY, escape(answer or EMPTY)
    seen = aligned_words(reference, transcript) if reference and transcript else None
    if reference and seen is not None:
        shown = marked_transcript(reference, transcript)
        of = seen.hits + seen.substitutions + seen.deletions
        wrong = f"{seen.substitutions + seen.deletions + seen.insertions} of {of}"
    if answer and expected:
        judged = f"{'✓' if same_answer(expected, answer) else '✗'} {judged}"
    return {
        "who": escape(row["who"]),
        "transcript": shown,
        "words wrong": wrong,
        "answer": judged,
        "trials": str(row["times"]),
        "median latency": seconds(row["latency_s"]),
    }


# ---------------------------------------------------------------------------------- the controls


def request_player(session: Session) -> Any:
    """A menu of this notebook's requests over `request_html`."""
    import ipywidgets as widgets

    trials, cases = session.table("trials"), session.table("cases")
    clips = {clip.id: clip for clip in session.clips}
    asked = trials[trials["experiment"].isin(EXPERIMENTS) & trials["clip_id"].isin(list(clips))]
    asked = asked.drop_duplicates(["clip_id", "question"])
    if asked.empty:
        return widgets.HTML("<p>No request was served, so there is nothing to play.</p>")
    view = output()
    labels = [
        f"{row['clip_id']} · {row['audio_s']:.1f} s · {row['question']}"
        for _, row in asked.iterrows()
    ]
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
        expected = text_of(row, "expected_answer") or None
        view.value = request_html(clip, question, expected, rows, samples=clip.samples())

    menu.observe(update, names="value")
    update()
    return widgets.VBox([menu, view])
