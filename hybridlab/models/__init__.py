"""The models that occupy the device: one small interface for every Whisper and for Voxtral."""

from hybridlab.models.base import (
    AudioLanguageModel,
    GenerationResult,
    Model,
    ModelSpec,
    SpeechRecognizer,
)
from hybridlab.models.factory import make_asr, make_llm
from hybridlab.models.transcription import TranscribeOptions

__all__ = [
    "AudioLanguageModel",
    "GenerationResult",
    "Model",
    "ModelSpec",
    "SpeechRecognizer",
    "TranscribeOptions",
    "make_asr",
    "make_llm",
]
