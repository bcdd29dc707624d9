"""hybridlab: which Whisper can live beside Voxtral on one device, how they should share it,
and how close to the edge that is."""

import os

from hybridlab.family import join_family

__version__ = "0.1.0"

#: Raised whenever the way a number is measured changes; written into every manifest.
MEASUREMENT_VERSION = 8

#: Whoever asks torch whether there is a GPU (transformers does, when imported) has it ask NVML: the
#: other way starts CUDA's driver in the process, after which no fork of it can use a GPU.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

join_family()
