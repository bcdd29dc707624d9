"""From a spec to a tenant; a backend's library is imported only when it is chosen."""

from __future__ import annotations

from contextlib import suppress

from hybridlab import catalog
from hybridlab.devices import Device
from hybridlab.models.base import Analyst, TenantSpec, Transcriber


def make_transcriber(spec: TenantSpec, device: Device) -> Transcriber:
    """The Whisper of this spec, not loaded yet."""
    if spec.backend == "openai-whisper":
        from hybridlab.models.whisper_openai import WhisperOpenai

        return WhisperOpenai(spec, device)
    if spec.backend == "faster-whisper":
        from hybridlab.models.whisper_ctranslate2 import WhisperCtranslate2

        return WhisperCtranslate2(spec, device)
    from hybridlab.models.whisper_transformers import WhisperTransformers

    return WhisperTransformers(spec, device)


def make_analyst(spec: TenantSpec, device: Device) -> Analyst:
    """The Voxtral of this spec, not loaded yet."""
    from hybridlab.models.voxtral import VoxtralTransformers

    return VoxtralTransformers(spec, device)


def prepare(device: str, transcriber: TenantSpec | None, analyst: TenantSpec | None) -> None:
    """Build what every process that loads these builds alike and nobody changes: for the server
    that such processes are forked from. On a CPU a processor is memory of the device, and what
    loading takes: left to the case."""
    from hybridlab.models import processors

    with suppress(ImportError):  # a transformers that keeps no such table has none to build
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("whisper")  # of all models, and for both
    if transcriber is not None:
        vocab_size = catalog.whisper(transcriber.model).vocab_size
        if transcriber.backend == "openai-whisper":
            processors.openai_tokenizer(vocab_size)
        elif transcriber.weights == "random" and device != "cpu":
            mel_bins = catalog.whisper(transcriber.model).encoder.mel_bins
            processors.whisper_processor(vocab_size=vocab_size, num_mel_bins=mel_bins)
            processors.whisper_generation_config(vocab_size=vocab_size)
    if analyst is not None and analyst.weights == "random" and device != "cpu":
        processors.voxtral_processor(vocab_size=catalog.voxtral(analyst.model).text.vocab_size)
