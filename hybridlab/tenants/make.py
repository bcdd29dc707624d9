"""From a spec to a tenant; a backend's library is imported only when it is chosen."""

from __future__ import annotations

from hybridlab.device import Device
from hybridlab.tenants.base import Analyst, TenantSpec, Transcriber


def make_transcriber(spec: TenantSpec, device: Device) -> Transcriber:
    """The Whisper of this spec, not loaded yet."""
    if spec.backend == "openai-whisper":
        from hybridlab.tenants.whisper_openai import WhisperOpenai

        return WhisperOpenai(spec, device)
    if spec.backend == "faster-whisper":
        from hybridlab.tenants.whisper_ctranslate2 import WhisperCtranslate2

        return WhisperCtranslate2(spec, device)
    from hybridlab.tenants.whisper_transformers import WhisperTransformers

    return WhisperTransformers(spec, device)


def make_analyst(spec: TenantSpec, device: Device) -> Analyst:
    """The Voxtral of this spec, not loaded yet."""
    from hybridlab.tenants.voxtral import VoxtralTransformers

    return VoxtralTransformers(spec, device)
