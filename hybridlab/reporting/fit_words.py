"""Which Whisper fits, in words: the one wording of the report's first sentence, its three numbers
and the figure. No torch, no matplotlib."""

from __future__ import annotations

import math

from hybridlab import catalog
from hybridlab.analysis.pick import margin_words
from hybridlab.analysis.which_fits import PairFit, WhichFits
from hybridlab.reporting import labels
from hybridlab.units import counted, format_bytes

#: What every pick leaves.
MARGIN = margin_words()
#: What was done for a row, and how it is said of a bar.
EVIDENCE = {
    "measured": "measured on the device itself",
    "simulated": "simulated: CUDA's own allocator without a GPU; no times",
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
        f"{counted(kinds.count(kind), 'pair')} {words}"
        for kind, words in EVIDENCE.items()
        if kind in kinds
    ]


def nearest(found: WhichFits) -> PairFit:
    """Where nothing fits, what is least short."""
    known = [row for row in found.rows if not row.lost] or found.rows
    return max(known, key=lambda row: row.margin_bytes)


def verdict(row: PairFit) -> str:
    """'2.43 GiB free', '3.21 GiB short', 'out of memory': what it leaves of the card."""
    if row.lost:
        return row.lost
    if not math.isfinite(row.margin_bytes):
        return "margin unknown"
    if row.margin_bytes < 0:
        return labels.spare(row.margin_bytes)
    return f"{format_bytes(row.margin_bytes)} free"


def limit(row: PairFit) -> str:
    """What breaks first: of what fits the longest audio, of what does not when it fails; '' where
    that is not known."""
    if not row.moments:
        return ""
    if not row.fits:
        return labels.WHILE[row.highest_moment]
    if row.longest_audio_s is None:
        return f"most {labels.WHILE[row.highest_moment]}"
    return f"audio up to {row.longest_audio_s:g} s fits"


def row_words(row: PairFit) -> str:
    """'✓ 2.43 GiB free, audio up to 180 s fits': what stands beside a bar."""
    sign = labels.FIT_SIGNS["fits" if row.fits else "does not fit"]
    return f"{sign} {', '.join(filter(None, [verdict(row), limit(row)]))}"


def audio_is_from(found: WhichFits) -> list[str]:
    """What the longest audio of the rows is, for small print; nothing where none has any."""
    said = []
    if any(row.predicted_audio_s and not row.search for row in found.rows):
        said.append(f"audio up to … s fits: predicted, with {MARGIN}")
    searched = [row.name for row in found.rows if row.search]
    if searched:
        said.append(f"found by search for {', '.join(searched)}")
    return said


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
        at_least = "at least " if pick.search and not pick.search.failed_beyond else ""
        longest = f"{at_least}{pick.longest_audio_s:g} s of audio"
        cards.append(("Longest request", longest, _longest_is_from(found, pick)))
    moment = labels.MOMENTS[pick.highest_moment]
    if pick.audio_is_limited:
        cards.append(("What breaks first", "a longer audio", "the request peak grows with it"))
    else:
        cards.append(("What breaks first", moment, f"the highest moment, {peak}"))
    return cards


def _longest_is_from(found: WhichFits, pick: PairFit) -> str:
    """Whether it was found by search or is predicted, and what the run's searches found of other
    pairs."""
    if pick.search:
        end = "a longer one failed" if pick.search.failed_beyond else "no longer one was tried"
        return f"found by search on {_device(found)}: {end}"
    most = "" if pick.audio_is_limited else "all that Voxtral takes; "
    others = [
        f"; {size} ({backend}, {dtype}) by search: {search.longest_s:g} s of audio"
        for (size, backend, dtype), search in found.searches.items()
    ]
    return f"{most}predicted, with {MARGIN}{''.join(others)}"


def _device(found: WhichFits) -> str:
    return "the simulated card" if found.evidence == "simulated" else "this device"
