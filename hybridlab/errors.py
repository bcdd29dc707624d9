"""Every error the lab raises on purpose: what happened, the value seen, what to do next.

All of them pickle, because a case raises them in another process.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HybridlabError(Exception):
    """Base of the lab's errors; its message is one line that a reader can act on."""


class ParameterError(HybridlabError):
    """A parameter is unknown, of the wrong type, or impossible together with another."""

    @classmethod
    def unknown_name(cls, kind: str, name: str, known: Iterable[str]) -> ParameterError:
        """`kind` 'parameter', name 'trails' -> "unknown parameter 'trails'; did you mean ..."."""
        known = list(known)
        near = difflib.get_close_matches(name, known, n=1)
        if near:
            return cls(f"unknown {kind} {name!r}; did you mean {near[0]!r}?")
        return cls(f"unknown {kind} {name!r}; choose one of: {', '.join(known)}")


class UnavailableError(HybridlabError):
    """This machine lacks something that the case needs; the case is skipped with this reason."""


class WeightsError(HybridlabError):
    """Weights are missing, of another architecture, or not in safetensors."""

    @classmethod
    def missing(cls, checkpoint: str, size: str) -> WeightsError:
        """Nothing of it, or not all, is in the cache that a load reads."""
        return cls(
            f"{checkpoint} is not on this machine yet; `hybridlab fetch PRESET` fetches it (about "
            f"{size})"
        )

    @classmethod
    def no_token(cls, repository: str) -> WeightsError:
        """The hub keeps `repository` for those who say who they are."""
        return cls(
            f"{repository} is not open to everybody: accept its terms on its page, then set "
            "HF_TOKEN to a Hugging Face token (on Colab a secret of that name with notebook access)"
        )


class AudioError(HybridlabError):
    """An audio file or manifest is missing, empty, corrupt, silent or too long."""


class AudioTooShortError(AudioError):
    """An audio is too short for a word."""


class RunFolderError(HybridlabError):
    """A run folder exists already, cannot be written, or does not hold a run."""


class CaseFailedError(HybridlabError):
    """An inline case failed; in a process of its own it would have been a recorded result."""


class WorkerLostError(HybridlabError):
    """A worker's process ended while it was needed: its request has no answer yet."""


class WorkerFaultError(HybridlabError):
    """A fault in a worker that is neither the lab's own nor out of memory, with its traceback."""
