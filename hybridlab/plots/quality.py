"""Figure of text: word error rate (%)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hybridlab.plots import style, wording
from hybridlab.stats import word_error_rate


@style.styled
def quality(trials: pd.DataFrame) -> Figure:
    """Word error rate of each tenant that gave a transcript: a dot per clip, a line for all words.

    `whisper_size`, where the rows have it, tells the Whispers apart.
    """
    rows = transcripts_of(trials)
    if rows.empty:
        return style.nothing_to_show(
            "No transcript can be held against a reference (weights without text, or clips without "
            "a reference)."
        )
    groups = {str(name): group for name, group in rows.groupby("who", sort=True)}
    figure, ax = style.new_axes(style.rows_height(len(groups), each_in=0.6))
    overall: dict[str, float] = {}
    for y, (who, group) in enumerate(groups.items()):
        tenant = "voxtral" if who.startswith("Voxtral") else "whisper"
        pairs = zip(group["reference"], group["transcript"], strict=True)
        each = np.array([word_error_rate([r], [h]) for r, h in pairs]) * 100
        spread = ((np.arange(len(each)) * 0.618034) % 1 - 0.5) * 0.4
        marker = "o" if tenant == "voxtral" else "s"
        ax.plot(each, y + spread, marker, color=style.OWNER_COLOURS[tenant], alpha=0.6, mec="none")
        overall[who] = word_error_rate(list(group["reference"]), list(group["transcript"]))
        ax.vlines(overall[who] * 100, y - 0.32, y + 0.32, color="black", linewidth=2.6, zorder=4)
    ax.set_yticks(range(len(groups)), [f"{who}\n(n = {len(g)})" for who, g in groups.items()])
    ax.set_ylim(len(groups) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_xlim(left=min(0.0, -0.02 * ax.get_xlim()[1]))
    ax.set_xlabel("word error rate (%)")
    notes = [f"{wording.percent(overall[who])} of all words" for who in groups]
    style.note_column(ax, list(enumerate(notes)))
    ranked = sorted(overall, key=lambda who: overall[who])
    title = f"{ranked[0]} has a word error rate of {wording.percent(overall[ranked[0]])}"
    if len(ranked) > 1:
        title += f", {ranked[-1]} of {wording.percent(overall[ranked[-1]])}"
    caption = wording.caption_of(
        None,
        f"n = {len(rows)} transcripts, each clip once per tenant",
        "lower case, without punctuation; dot: a clip, line: all words",
        wording.device_words(rows),
    )
    return style.finish(figure, title, caption)


def transcripts_of(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials with a reference and a transcript, one per clip and tenant, with a column `who`."""
    if trials.empty:
        return trials.assign(who=pd.Series(dtype=str))
    rows = trials[trials["reference"].notna() & trials["transcript"].notna()]
    rows = rows[rows["reference"].astype(str).str.strip() != ""]
    who = [_transcriber(row) for _, row in rows.iterrows()]
    rows = rows.assign(who=pd.Series(who, index=rows.index, dtype=str))
    # greedy decoding says the same every time: repeats would only weigh some clips twice
    return rows.drop_duplicates(["who", "reference", "transcript"])


def _transcriber(row: pd.Series[Any]) -> str:
    strategy, variant = wording.text_of(row, "strategy"), wording.text_of(row, "variant")
    if strategy == "solo" or (strategy == "alone" and variant == "voxtral"):
        return "Voxtral"
    return f"Whisper {wording.text_of(row, 'whisper_size')}".strip()
