"""Which Whisper fits, in words: the one wording of the report's first sentence, its three numbers
and the figure. No torch, no matplotlib."""

from __future__ import annotations

import math

from hybridlab import catalog
from hybridlab.analysis.pick import margin_words
from hybridlab.analysis.which_fits import PairFit, WhichFits
from hybridlab.reporting import labels
from hybridlab.units import format_bytes

#: What every pick leaves.
MARGIN = margin_words()
#: What was done for a row, and how it is said of a bar.
EVIDENCE = {
    "measured": "measured on the device itself",
    "simulated": "simulated: CUDA's own allocator without a GPU, bytes alone",
    "predicted": "predicted by formulas, nothing was run",
}


def where(found: WhichFits) -> str:
    """'On a simulated T4'; predictions speak of any such card, cases of the one that was there."""
    if found.card is None:
        return f"On this GPU ({found.device})"
    title = found.card.title.removeprefix("NVIDIA ")
    if found.memory_limited:
        limit = format_bytes(found.capacity_bytes)
        return f"On this {title if found.card.is_gpu else 'CPU'}, limited to {limit},"
    if not found.card.is_gpu:
        return "On this machine's CPU"
    if found.evidence == "measured":
        return f"On this {title}"
    return f"On a {'simulated ' if found.evidence == 'simulated' else ''}{title}"


def headline(found: WhichFits) -> str:
    """The answer in one sentence, without its full stop."""
    pick, voxtral = found.pick, voxtral_name(found.llm_model)
    if pick is None:
        least = nearest(found)
        return (
            f"{where(found)} no Whisper fits beside {voxtral} with {MARGIN}: "
            f"{least.name} is nearest ({verdict(least)})"
        )
    fits = "is predicted to fit" if pick.evidence == "predicted" else "fits"
    return (
        f"{where(found)} Whisper {pick.name} {fits} beside {voxtral} with "
        f"{labels.spare(pick.margin_bytes)}"
    )


def voxtral_name(model: str) -> str:
    """'Voxtral-Mini-3B'."""
    return f"Voxtral-{model.title()}" if model in catalog.VOXTRALS else f"Voxtral {model}"


def evidence(found: WhichFits) -> list[str]:
    """'6 pairs simulated: …', of each kind that some row is of."""
    kinds = [row.evidence for row in found.rows if row.moments]
    return [
        f"{labels.counted(kinds.count(kind), 'pair')} {words}"
        for kind, words in EVIDENCE.items()
        if kind in kinds
    ]


def nearest(found: WhichFits) -> PairFit:
    """Where nothing fits, what is least short."""
    known = [row for row in found.rows if not row.lost] or found.rows
    return max(known, key=lambda row: row.margin_bytes)


def verdict(row: PairFit) -> str:
    """'2.43 GiB', '3.21 GiB short', 'out of memory': what it leaves of the card."""
    if row.lost:
        return row.lost
    if not math.isfinite(row.margin_bytes):
        return "margin unknown"
    if row.margin_bytes < 0:
        return labels.spare(row.margin_bytes)
    return format_bytes(row.margin_bytes)


def breaks_first(row: PairFit) -> str:
    """What would end it first: an audio beyond what a request may bring, else the moment that takes
    most."""
    if not row.moments:
        return ""
    if row.fits and row.audio_is_limited:
        return f"breaks over {row.longest_audio_s:g} s of audio"
    return labels.MOMENTS[row.highest_moment]


# ---------------------------------------------------------------------------- the three numbers

#: Label, figure and small print.
Card = tuple[str, str, str]


def three_numbers(found: WhichFits) -> list[Card]:
    """What fits with how much to spare, the longest audio, and what breaks first."""
    pick = found.pick
    if pick is None:
        least = nearest(found)
        return [("What fits", "no Whisper", f"the nearest, {least.name}: {verdict(least)}")]
    peak = format_bytes(max(pick.moments.values()))
    spare = f"{labels.spare(pick.margin_bytes)}: {peak} of {format_bytes(found.capacity_bytes)}"
    cards = [("What fits", pick.asr_model, spare)]
    if pick.longest_audio_s is not None:
        most = "" if pick.audio_is_limited else "all that Voxtral takes, "
        longest = f"{pick.longest_audio_s:g} s of audio"
        cards.append(("Longest request", longest, f"{most}with {MARGIN}: predicted"))
    moment = labels.MOMENTS[pick.highest_moment]
    if pick.audio_is_limited:
        cards.append(("What breaks first", "a longer audio", "the request peak grows with it"))
    else:
        cards.append(("What breaks first", moment, f"the highest moment, {peak}"))
    return cards
