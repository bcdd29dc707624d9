"""Which recogniser the server has where its options leave that open: the pick for the card."""

from __future__ import annotations

from typing import Any, NamedTuple

from hybridlab.analysis.pick import AUTO, best_by_size, candidates, pick_of
from hybridlab.catalog import Card
from hybridlab.errors import ParameterError

#: Beside a model that ships with the package.
POCKET = "pocket-m"
#: For a host, and a card that is not in the catalog.
BACKEND = "openai-whisper"


class Recognizer(NamedTuple):
    """A Whisper, the library that runs it and the dtype of its weights, each of which may be
    'auto'."""

    model: str
    backend: str
    dtype: str

    def elsewhere(self) -> Recognizer:
        """Where no plan is for the device; the dtype is then the backend's own."""
        return self._replace(backend=BACKEND if self.backend == AUTO else self.backend)


def chosen(asked: Recognizer, card: Card | None, **options: Any) -> Recognizer:
    """What was asked, its open parts as of the pick among what was left open; `options` as of
    `candidates`. `ParameterError` where the size is open and there is no pick."""
    kept = {"size": asked.model, "backend": asked.backend, "dtype": asked.dtype}
    plans = candidates(card, **kept, **options) if card else []
    best = pick_of(plans)
    if asked.model != AUTO:
        best = next(iter(best_by_size(plans)), None)
    elif best is None:
        where = f"no Whisper fits on {card.title}" if card else "no plan is for this device"
        raise ParameterError(f"{where}, so none is picked; name one with --asr-model")
    if best is None:
        return asked.elsewhere()
    return Recognizer(best.asr_model, best.asr_backend, best.asr_dtype)
