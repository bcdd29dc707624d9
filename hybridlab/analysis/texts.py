"""Which texts count: one that was cut short, at a limit of tokens or with audio left unread, is no
error rate, no parity and no claim. How a text ended is not known of older runs, whose texts count.
"""

from __future__ import annotations

from typing import Literal, get_args

import pandas as pd

Text = Literal["transcript", "answer"]
TEXTS: tuple[Text, ...] = get_args(Text)
#: How texts end that are cut short.
CUT_SHORT = {"length": "cut at the limit of tokens", "early": "ended with audio left unread"}


def is_cut(trials: pd.DataFrame, text: Text) -> pd.Series:
    """Of which trials this text is known to be cut short."""
    column = f"{text}_finish"
    if column not in trials:
        return pd.Series(False, index=trials.index)
    return trials[column].isin(list(CUT_SHORT))


def is_said(trials: pd.DataFrame, text: Text) -> pd.Series:
    """Of which trials this text is there and was not cut short."""
    return trials[text].notna() & ~is_cut(trials, text)


def heard(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials whose transcript can be held against what was said."""
    return trials[is_said(trials, "transcript") & trials["reference"].notna()]


def whole(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials none of whose texts was cut short."""
    return trials[~is_cut(trials, "transcript") & ~is_cut(trials, "answer")]


def endings(trials: pd.DataFrame) -> str:
    """'3 of 40 texts were cut short: 2 transcripts (5 of 20 windows) cut at the limit of tokens, 1
    answer ...; they are in no word error rate ...'; '' where all that is known ended by itself."""
    n_texts, n_cut, found = 0, 0, []
    for text in TEXTS:
        there = trials[trials[text].notna()]
        cut = there[is_cut(there, text)]
        n_texts, n_cut = n_texts + len(there), n_cut + len(cut)
        for finish, words in CUT_SHORT.items():
            own = cut[cut[f"{text}_finish"] == finish] if len(cut) else cut
            if len(own):
                noun = text if len(own) == 1 else f"{text}s"
                found.append(f"{len(own)} {noun} {words}{_windows(own, text)}")
    if not found:
        return ""
    return (
        f"{n_cut} of {n_texts} texts {'was' if n_cut == 1 else 'were'} cut short: "
        f"{', '.join(found)}; cut texts are in no word error rate, no parity and no claim."
    )


def _windows(own: pd.DataFrame, text: Text) -> str:
    """' (5 of 20 windows)' of these transcripts, where that is known."""
    columns = ["transcript_windows_cut", "transcript_windows"]
    if text != "transcript" or not {*columns} <= {*own}:
        return ""
    cut, every = own[columns].astype(float).dropna().sum()
    return f" ({cut:.0f} of {every:.0f} windows)" if every else ""
