"""Out of memory as a result: recognised whichever library raised it, and parsed for a row."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass

from hybridlab.units import GIB, KIB, MIB

#: CUDA's allocator, the CPU's, Python's, the C++ library's and oneDNN's words for it (oneDNN says
#: that it could not create a primitive when it finds no memory for its code or its buffers).
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|bad_alloc"
    r"|(?:failed|unable) to allocate|not enough memory"
    r"|could not create a (?:memory object|primitive)",
    re.IGNORECASE,
)
#: What Python says of an extension that failed and gave no reason.
_SILENT = re.compile(r"(?:error return|returned NULL) without (?:exception|setting an exception)")
_REQUESTED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMG]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": KIB, "mib": MIB, "gib": GIB}


@dataclass(frozen=True)
class OutOfMemory:
    """What an allocation failure says; `requested_bytes` is None where it does not say how much."""

    message: str
    requested_bytes: int | None


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """The failure behind this error, or None when it is another fault. Libraries wrap what they
    catch, so what an error came from is looked at too."""
    text = str(error).strip()
    known = isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text)
    if not (known or _without_a_reason(error, text)):
        origin = error.__cause__ or error.__context__
        return out_of_memory(origin) if origin is not None else None
    asked = _REQUESTED.search(text)
    requested = round(float(asked[1]) * _UNITS[asked[2].lower()]) if asked else None
    # Python's own has no message
    first = text.splitlines()[0] if text else f"out of memory ({type(error).__name__})"
    return OutOfMemory(first, requested)


def _without_a_reason(error: BaseException, text: str) -> bool:
    """Whether an extension failed without a message where memory is limited: some of them find none
    and forget to say so (seen while a model was loaded into a limit)."""
    limited = resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY
    return limited and isinstance(error, SystemError) and bool(_SILENT.search(text))
