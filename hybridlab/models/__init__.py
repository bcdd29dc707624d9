"""The models that occupy the device: one small interface for every Whisper and for Voxtral."""

from hybridlab.models.base import Analyst, Tenant, TenantSpec, Text, Transcriber
from hybridlab.models.make import make_analyst, make_transcriber

__all__ = [
    "Analyst",
    "Tenant",
    "TenantSpec",
    "Text",
    "Transcriber",
    "make_analyst",
    "make_transcriber",
]
