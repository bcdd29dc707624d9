"""Google Colab: whether this is one, whether it has a GPU, and its secret token."""

from __future__ import annotations

import os

#: The preset that a Colab with a GPU runs unless the reader changes it.
PRESET = "colab-t4"


def on_colab() -> bool:
    """Whether this process runs in a Colab machine: the same question as the bootstrap cell's."""
    return "COLAB_RELEASE_TAG" in os.environ


def has_gpu() -> bool:
    """Whether the driver knows a GPU. Asked of NVML: torch would take seconds to import."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount()) > 0
    except pynvml.NVMLError:
        return False
