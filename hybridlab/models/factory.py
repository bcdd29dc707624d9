"""From a spec to a tenant; a backend's library is imported only when it is chosen."""

from __future__ import annotations

from contextlib import suppress

from hybridlab import catalog
from hybridlab.devices import Device
from hybridlab.models.base import AudioLanguageModel, ModelSpec, SpeechRecognizer


def make_asr(spec: ModelSpec, device: Device) -> SpeechRecognizer:
    """The Whisper of this spec, not loaded yet."""
    if spec.backend == "openai-whisper":
        from hybridlab.models.whisper_openai import WhisperOpenai

        return WhisperOpenai(spec, device)
    if spec.backend == "faster-whisper":
        from hybridlab.models.whisper_faster import WhisperCtranslate2

        return WhisperCtranslate2(spec, device)
    from hybridlab.models.whisper_transformers import WhisperTransformers

    return WhisperTransformers(spec, device)


def make_llm(spec: ModelSpec, device: Device) -> AudioLanguageModel:
    """The Voxtral of this spec, not loaded yet."""
    from hybridlab.models.voxtral import VoxtralTransformers

    return VoxtralTransformers(spec, device)


def prepare(device: str, asr: ModelSpec | None, llm: ModelSpec | None) -> None:
    """Build what every process that loads these builds alike and nobody changes: for the server
    that such processes are forked from. On a CPU a processor is memory of the device, and what
    loading takes: left to the case."""
    from hybridlab.models import processors

    with suppress(ImportError):  # a transformers that keeps no such table has none to build
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("whisper")  # of all models, and for both
    if asr is not None:
        vocab_size = catalog.whisper(asr.model).vocab_size
        if asr.backend == "openai-whisper":
            processors.openai_tokenizer(vocab_size)
        elif asr.weights == "random" and device != "cpu":
            mel_bins = catalog.whisper(asr.model).encoder.mel_bins
            processors.whisper_processor(vocab_size=vocab_size, num_mel_bins=mel_bins)
            processors.whisper_generation_config(vocab_size=vocab_size)
    if llm is not None and llm.weights == "random" and device != "cpu":
        processors.voxtral_processor(vocab_size=catalog.voxtral(llm.model).text.vocab_size)
