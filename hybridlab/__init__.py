"""hybridlab: which Whisper can live beside Voxtral on one device, how they should share it,
and how close to the edge that is."""

__version__ = "0.1.0"

#: Raised whenever the way a number is measured changes; written into every manifest.
MEASUREMENT_VERSION = 7
