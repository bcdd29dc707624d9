"""Values on a simulated card: what its operations should have computed.

The operations of CUDA's torch run on a simulated card as they are, so that its caching allocator is
asked for the real bytes, but no kernel is ever executed. `install` puts a step of ours around each
of them which computes on the CPU, over the same memory, what the kernel would have written:

- `all`: every value. A model says on the simulated card what it says on the CPU.
- `sizes`: integers, masks and indices exactly; a floating-point tensor of more than a few KiB is
  not computed and counts as zeros wherever something is decided from it. Full-size models with
  random weights run with their real sizes, in almost no memory of the host.

`operations` holds the table of what is done for which operation, and why.
"""

from __future__ import annotations

import threading
from typing import Literal, get_args

Mode = Literal["all", "sizes"]

_installing = threading.Lock()
_installed: Mode | None = None


def install(mode: Mode) -> None:
    """Compute values from now on, in every thread of this process and in its forked children.

    There is no way back, and no second mode beside the first: what has not been computed is lost.
    Tensors that are not on the card are not touched.
    """
    global _installed
    if mode not in get_args(Mode):
        raise ValueError(f"values are computed as one of {get_args(Mode)}, not {mode!r}")
    with _installing:
        if _installed == mode:
            return
        if _installed is not None:
            raise RuntimeError(f"values are computed as {_installed!r} in this process already")
        from hybridlab.simulation import operations

        operations.register(every_value=mode == "all")
        _installed = mode


def prepare(mode: Mode) -> None:
    """Find out about every operation what `install` needs, once for all processes forked later."""
    from hybridlab.simulation import operations

    operations.steps(every_value=mode == "all")


def installed() -> Mode | None:
    """Which values this process computes, `None` where it computes none."""
    return _installed
