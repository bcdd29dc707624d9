"""hybridlab: which Whisper can live beside Voxtral on one device, how they should share it,
and how close to the edge that is."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridlab.api import PlanReport, Run, load_run, plan, run, transcribe

__version__ = "0.1.0"

#: Raised whenever the way a number is measured changes; written into every manifest.
MEASUREMENT_VERSION = 12

#: `torch.cuda.is_available()`, which transformers calls when imported, asks NVML: the other way
#: starts CUDA's driver in the process, after which no fork of it can use a GPU.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

#: In the environment of a run, its notebooks' kernels, their cases and whatever those start: a word
#: that begins with the number of the process that chose it, since what a process sets itself is not
#: in its /proc entry. Set when the package is imported: before it can start a process.
FAMILY_VARIABLE = "HYBRIDLAB_FAMILY"
os.environ.setdefault(FAMILY_VARIABLE, f"{os.getpid()}-{os.urandom(4).hex()}")

#: The Python API (`hybridlab.api`), imported when it is first used.
__all__ = ["PlanReport", "Run", "load_run", "plan", "run", "transcribe"]


if not TYPE_CHECKING:  # a type checker would take every name for known

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'hybridlab' has no attribute {name!r}")
        return getattr(import_module("hybridlab.api"), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
