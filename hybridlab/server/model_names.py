"""What clients may call the models that are served."""

from __future__ import annotations

from collections.abc import Iterable

from hybridlab import catalog

#: Ends the name of a model whose weights are random: its text means nothing, and may be empty.
WITHOUT_TEXT = "-random"
#: What clients of OpenAI's transcriptions ask for, some without another choice.
OPENAI_NAMES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
)


def model_id(role: str, model: str, weights: str) -> str:
    """As /v1/models lists it: 'whisper-large-v3'."""
    return f"{catalog.FAMILIES[role]}-{model}{WITHOUT_TEXT if weights == 'random' else ''}"


def pocket_words(name: str) -> str:
    """What to know of every text of the model with this id; '' for nothing. An upload is never one
    of the shipped clips."""
    return catalog.pocket_words(_size_of(name))


def _size_of(name: str) -> str:
    """'whisper-large-v3' -> 'large-v3'."""
    return name.removesuffix(WITHOUT_TEXT).partition("-")[2]


def known_names(role: str, ids: Iterable[str]) -> set[str]:
    """In lower case, of a model of this role with these ids: the role, its family, the size alone,
    its name on the hub, with or without its owner, and that of its conversion for faster-whisper;
    of the ASR also OpenAI's names."""
    known: set[str] = {role, *(OPENAI_NAMES if role == "asr" else ())}
    for name in ids:
        family, size = catalog.FAMILIES[role], _size_of(name)
        find = catalog.whisper if role == "asr" else catalog.voxtral
        hub_id = find(size).hub_id
        released = hub_id.rpartition("/")[2]
        known |= {name, family, size, f"{family}-{size}"}
        if hub_id:
            known |= {hub_id, released}
        if hub_id and role == "asr":
            size = released.removeprefix(f"{family}-")
            distilled = size.replace("distil-", f"distil-{family}-")
            converted = f"{family}-{size}" if distilled == size else distilled
            known |= {size, f"faster-{converted}", f"Systran/faster-{converted}"}
    return {name.lower() for name in known}
