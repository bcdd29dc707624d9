"""What `docker/compose.*.yaml` read from `docker/.env`: every value derived from the planner.

Two containers on one GPU know nothing of each other's bytes. So each is told what its requests may
take: what one request of the longest audio takes, where the longest is the longest for which all
of this is there at once on the smallest card of its kind: two driver contexts, both weights, a
Voxtral request, and beside it a Whisper request or a Whisper that loads again after a fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hybridlab import catalog
from hybridlab.catalog import Card, VoxtralModel, WhisperModel
from hybridlab.errors import ParameterError
from hybridlab.planner import (
    Estimate,
    Request,
    audio_array_bytes,
    largest,
    total,
    voxtral_phases,
    way_ledgers,
    whisper_load_peak_bytes,
    whisper_phases,
    whisper_weights_bytes,
)
from hybridlab.planner.inverse import largest_fitting
from hybridlab.planner.pair import (
    HOST_BASE_BYTES,
    default_voxtral_dtype,
    native_combinations,
    slack_bytes,
)
from hybridlab.planner.weights import voxtral_host_bytes, whisper_host_bytes
from hybridlab.server.settings import Settings
from hybridlab.server.uploads import Limits
from hybridlab.units import GB, MIB, format_bytes

#: Most requests under way, as of `hybridlab gateway`; no model's queue needs to be longer.
QUEUE = 16
#: CTranslate2 is not in the image.
BACKENDS = ("openai-whisper", "transformers")
#: A body is there as it came and as what was made of it: for Voxtral base64, for the gateway both
#: forms that it sends (multipart for Whisper, base64 for Voxtral).
COPIES = {"whisper": 2.0, "voxtral": 4 / 3 + 1, "gateway": 2 + 4 / 3 + 1}


@dataclass(frozen=True, kw_only=True)
class Services:
    """Voxtral and Whisper as containers on one card, each with a context of its own."""

    card: Card
    voxtral: VoxtralModel
    voxtral_dtype: str
    whisper: WhisperModel
    backend: str
    dtype: str
    request: Request

    @property
    def resting(self) -> Estimate:
        """Two contexts and both weights."""
        ways = way_ledgers(
            self.card,
            self.whisper,
            self.voxtral,
            backend=self.backend,
            dtype=self.dtype,
            voxtral_dtype=self.voxtral_dtype,
        )
        return total(list(ways["parallel, two processes"]["at rest"].values()))

    @property
    def second_copy_bytes(self) -> int:
        """What loading this Whisper takes for a moment above its weights."""
        kept: dict[str, Any] = {"backend": self.backend, "dtype": self.dtype}
        return whisper_load_peak_bytes(self.whisper, **kept) - whisper_weights_bytes(
            self.whisper, **kept
        )

    @property
    def loading_bytes(self) -> dict[str, int]:
        """Host memory while each tenant loads, page cache apart."""
        kept: dict[str, Any] = {"backend": self.backend, "dtype": self.dtype}
        return {
            "whisper": whisper_host_bytes(self.whisper, **kept),
            "voxtral": voxtral_host_bytes(self.voxtral, dtype=self.voxtral_dtype),
        }

    def asked(self, audio_s: float) -> dict[str, Estimate]:
        """A request's bytes on the device, by tenant."""
        request = replace(self.request, audio_s=audio_s)
        voxtral = voxtral_phases(self.voxtral, request, dtype=self.voxtral_dtype, card=self.card)
        whisper = whisper_phases(
            self.whisper, request, backend=self.backend, dtype=self.dtype, card=self.card
        )
        return {
            "voxtral": largest(list(voxtral.values())),
            "whisper": largest(list(whisper.values())),
        }

    def highest_bytes(self, audio_s: float) -> int:
        """The worst moment of both services, at the upper end of every estimate."""
        asked = self.asked(audio_s)
        beside = max(asked["whisper"].high, self.second_copy_bytes)
        slack = sum(slack_bytes(self.card, one).high for one in asked.values())
        return self.resting.high + asked["voxtral"].high + beside + slack

    @property
    def longest_audio_s(self) -> float:
        """In whole windows, at most what Voxtral's model card allows; 0 where none fits."""
        return catalog.WINDOW_S * largest_fitting(
            lambda n: self.highest_bytes(n * catalog.WINDOW_S) <= self.card.usable_bytes,
            most=int(catalog.VOXTRAL_MAX_ANSWER_S // catalog.WINDOW_S),
        )


def largest_services(
    card: Card, voxtral: VoxtralModel, *, voxtral_dtype: str | None, request: Request
) -> Services:
    """The pair with the most Whisper parameters that serves audio as long as the request's; of
    equal ones the one that serves the longest, then the one that loads with the least host memory.
    `ParameterError` where none does."""
    pairs = [
        Services(
            card=card,
            voxtral=voxtral,
            voxtral_dtype=voxtral_dtype or default_voxtral_dtype(card),
            whisper=catalog.whisper(size),
            backend=backend,
            dtype=dtype,
            request=request,
        )
        for size in catalog.WHISPER_SIZES
        for backend, dtype in native_combinations(card)
        if backend in BACKENDS
    ]
    good = [pair for pair in pairs if pair.longest_audio_s >= request.audio_s]
    if not good:
        raise ParameterError(
            f"on {card.title} no Whisper in a container of its own fits beside {voxtral.name} for "
            f"audio of {request.audio_s:g} s whatever the estimates' range holds; ask for a larger "
            "--card, a smaller --voxtral-dtype or --audio-s"
        )
    return max(
        good,
        key=lambda pair: (
            pair.whisper.parameters,
            pair.longest_audio_s,
            -sum(pair.loading_bytes.values()),
        ),
    )


# ------------------------------------------------------------------------------- host memory


@dataclass(frozen=True)
class HostMemory:
    """A container's memory in bytes, part by part. Page cache gives way and is not counted."""

    parts: dict[str, int]

    @property
    def value(self) -> str:
        """As compose files write it, rounded up."""
        return f"{math.ceil(sum(self.parts.values()) / MIB)}m"

    @property
    def derivation(self) -> str:
        return " + ".join(f"{format_bytes(size)} {name}" for name, size in self.parts.items())


def host_memory(services: Services, *, uploads_bytes: int) -> dict[str, HostMemory]:
    """By container. `uploads_bytes`: of the bodies of all requests that may be under way."""
    longest_s = services.longest_audio_s
    request = replace(services.request, audio_s=longest_s)
    samples = int(QUEUE * longest_s * catalog.SAMPLE_RATE_HZ * 4)
    shared = {
        "Python and libraries": HOST_BASE_BYTES,
        "decoder of uploads": Limits(longest_s, Settings().decode_timeout_s).memory_bytes,
        "decoded audio in the queue": samples,
    }
    loading = services.loading_bytes
    uploads = {name: int(copies * uploads_bytes) for name, copies in COPIES.items()}
    arrays = audio_array_bytes(request)
    found = {
        "whisper": {**shared, "uploads": uploads["whisper"], "loading": loading["whisper"]},
        "voxtral": {
            **shared,
            "uploads": uploads["voxtral"],
            "audio as arrays": arrays,
            "loading": loading["voxtral"],
        },
        "gateway": {"Python and libraries": HOST_BASE_BYTES, "uploads": uploads["gateway"]},
        "single": {
            **shared,
            "Python and libraries": 2 * HOST_BASE_BYTES,  # a worker each
            "uploads": uploads["voxtral"],
            "audio as arrays": arrays,
            "loading": sum(loading.values()),
        },
    }
    return {
        name: HostMemory({part: size for part, size in parts.items() if size})
        for name, parts in found.items()
    }


# ----------------------------------------------------------------------------------- the file


def lines(services: Services) -> Iterator[str]:
    """`docker/.env` without its token: each value below the line that says where it comes from."""
    card, longest_s = services.card, services.longest_audio_s
    limits = Settings(queue=QUEUE)
    asked = services.asked(longest_s)
    highest = format_bytes(services.highest_bytes(longest_s))
    yield f"# For {card.title} ({format_bytes(card.usable_bytes)} usable): predicted, not measured."
    yield "# HYBRIDLAB_TOKEN is yours to add: a long random token that clients must show."
    yield "# The largest Whisper that fits beside Voxtral in a container of its own."
    yield f"HYBRIDLAB_WHISPER={services.whisper.name}"
    yield f"HYBRIDLAB_WHISPER_BACKEND={services.backend}"
    yield f"HYBRIDLAB_WHISPER_DTYPE={services.dtype}"
    yield "# The dtype asked for, else bfloat16 where the card has it in hardware."
    yield f"HYBRIDLAB_VOXTRAL={services.voxtral.name}"
    yield f"HYBRIDLAB_VOXTRAL_DTYPE={services.voxtral_dtype}"
    yield f"# Longest audio for which all services take at most {highest} at their worst moment:"
    yield "# two contexts, both weights, a request each (or Whisper loading again), slack."
    yield f"HYBRIDLAB_MAX_AUDIO_S={longest_s:g}"
    yield "# GB of the device that each model's requests take together: one of the longest audio."
    for name, size in asked.items():
        yield f"HYBRIDLAB_{name.upper()}_ROOM_GB={math.ceil(size.expected / GB * 100) / 100:.2f}"
    yield "# Requests under way at the gateway; a model's queue is as long."
    yield f"HYBRIDLAB_QUEUE={QUEUE}"
    memory = host_memory(services, uploads_bytes=QUEUE * limits.max_upload_bytes)
    for name, host in memory.items():
        yield f"# Host memory: {host.derivation}."
        yield f"HYBRIDLAB_{name.upper()}_MEMORY={host.value}"
