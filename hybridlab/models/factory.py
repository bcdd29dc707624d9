"""From a spec to a model; a backend's library is imported only when it is chosen."""

from __future__ import annotations

import os
from contextlib import suppress

from hybridlab import catalog
from hybridlab.catalog.registry import load
from hybridlab.devices import Device
from hybridlab.models.base import AudioLanguageModel, ModelSpec, SpeechRecognizer, values_of
from hybridlab.simulation import STATE_VARIABLE, values


def make_asr(spec: ModelSpec, device: Device) -> SpeechRecognizer:
    """The recogniser of this spec, not loaded yet."""
    made: SpeechRecognizer = load(catalog.backend(spec.backend).recognizer)(spec, device)
    return made


def make_llm(spec: ModelSpec, device: Device) -> AudioLanguageModel:
    """The audio language model of this spec, not loaded yet."""
    from hybridlab.models.voxtral import VoxtralTransformers

    return VoxtralTransformers(spec, device)


def prepare(device: str, asr: ModelSpec | None, llm: ModelSpec | None) -> None:
    """Build what every process that loads these builds alike and nobody changes: for the server
    that such processes are forked from. On a CPU a processor is memory of the device, and what
    loading takes: left to the case."""
    from hybridlab.models import processors

    if STATE_VARIABLE in os.environ:
        values.prepare(values_of(asr, llm))
    with suppress(ImportError):  # a transformers that keeps no such table has none to build
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("whisper")  # of all models, and for both
    if asr is not None:
        known = catalog.whisper(asr.model)
        if catalog.backend(asr.backend).checkpoints == "openai":
            processors.openai_tokenizer(known.vocab_size)
        elif asr.weights == "random" and device != "cpu":
            processors.whisper_processor(
                vocab_size=known.vocab_size, num_mel_bins=known.encoder.mel_bins
            )
            processors.whisper_generation_config(vocab_size=known.vocab_size)
    if llm is not None and llm.weights == "random" and device != "cpu":
        processors.voxtral_processor(vocab_size=catalog.voxtral(llm.model).text.vocab_size)
