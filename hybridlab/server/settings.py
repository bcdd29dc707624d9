"""Everything that `hybridlab serve` can be told, checked before anything is loaded."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hybridlab import catalog
from hybridlab.catalog.device_names import check_device
from hybridlab.config.params import (
    Backend,
    Count,
    CountOrZero,
    VoxtralDtype,
    VoxtralName,
    WeightsSource,
    WhisperDtype,
    WhisperSize,
    _one_line,
    check_fallback,
    check_voxtral,
    check_whisper,
)
from hybridlab.errors import ParameterError
from hybridlab.server.sharing import Sharing, sharing_of
from hybridlab.units import GB

TOKEN_VARIABLE = "HYBRIDLAB_TOKEN"
#: The ladder of released sizes, and of those that ship with the package.
LADDER = ("large-v3", "medium", "base")
POCKET_LADDER = ("pocket-m", "pocket-s")
MB = 10**6
Positive = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Options and limits. `weights` is `auto`: `pocket` for pocket models, `hub` for others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    voxtral: VoxtralName = "pocket"
    voxtral_weights: Literal["auto"] | WeightsSource = "auto"
    voxtral_path: str = ""
    voxtral_dtype: VoxtralDtype = "auto"
    whisper: WhisperSize = "pocket-m"
    whisper_backend: Backend = "openai-whisper"
    whisper_weights: Literal["auto"] | WeightsSource = "auto"
    whisper_path: str = ""
    whisper_dtype: WhisperDtype = "auto"
    only: Literal["", "whisper", "voxtral"] = ""
    strategy: str = "sequential"
    variant: str = "batched"
    #: Sizes to step down to where memory runs out, as 'medium,base'; 'auto': those of the ladder
    #: below Whisper's own; 'none'.
    fallback: str = "auto"
    device: str = "auto"
    seed: CountOrZero = 0
    #: On a CPU: the file of a board on which servers that share its cores see who is at work, made
    #: if it is not there; '': this server's tenants share with each other alone.
    cores_board: str = ""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    token_file: str = ""

    #: Language of a transcription that does not name one; '' detects it.
    language: str = "en"
    #: Most requests of a kind in one call to a tenant.
    batch: Count = 8
    #: Most requests of a kind that wait.
    queue: Count = 64
    max_upload_mb: Positive = 25.0
    max_audio_s: Positive = catalog.VOXTRAL_MAX_ANSWER_S
    max_new_tokens: Count = 1024
    request_timeout_s: Positive = 300.0
    decode_timeout_s: Positive = 30.0
    decoders: Count = 1
    #: GB that requests may take together; 0: what the device has free once all is loaded.
    room_gb: Annotated[float, Field(ge=0)] = 0.0
    clean_every: CountOrZero = 0
    restart_above: Annotated[float, Field(gt=0, le=1)] = 1.0
    #: How long after a step down a larger Whisper is tried again.
    climb_after_s: Positive = 60.0
    drain_s: Annotated[float, Field(ge=0)] = 0.5

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`; every problem is a one-line `ParameterError` naming the fix."""
        for name in values:
            if name not in cls.model_fields:
                raise ParameterError.unknown_name("option", name, cls.model_fields)
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParameterError(_one_line(error)) from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_voxtral(self.voxtral, self.source("voxtral"), self.voxtral_path)
        for size in (self.whisper, *self.rungs):
            check_whisper(
                size,
                self.source(size),
                self.whisper_path,
                backend=self.whisper_backend,
                dtype=self.whisper_dtype,
            )
        for larger, size in zip((self.whisper, *self.rungs), self.rungs, strict=False):
            check_fallback(larger, size, self.source(size))
        self._check_sharing()
        check_device(self.device)
        token = self.token  # read whatever the address: a file that is not there is told
        if not self.loopback and not token:
            raise ParameterError(
                f"host {self.host!r} can be reached from elsewhere and needs a bearer token: put "
                f"one into the variable {TOKEN_VARIABLE} or into --token-file, or bind to 127.0.0.1"
            )
        return self

    def _check_sharing(self) -> None:
        sharing = self.sharing
        if self.only and self.variant != type(self).model_fields["variant"].default:
            raise ParameterError(
                f"only {self.only} has nobody to share with; leave --strategy and --variant out"
            )
        if sharing.swap == "reload-cold" and self.source(self.whisper) == "random":
            raise ParameterError("random weights have no files; use swapping / reload-warm")

    @property
    def sharing(self) -> Sharing:
        return sharing_of(self.strategy, self.variant)

    @property
    def has_whisper(self) -> bool:
        return self.only != "voxtral" and not self.sharing.solo

    @property
    def has_voxtral(self) -> bool:
        return self.only != "whisper"

    def source(self, model: str) -> str:
        """Where the weights of 'voxtral', or of a Whisper of this size, come from."""
        name = self.voxtral if model == "voxtral" else model
        asked = self.voxtral_weights if model == "voxtral" else self.whisper_weights
        if asked != "auto":
            return asked
        return "pocket" if name in (*catalog.POCKET_SIZES, "pocket") else "hub"

    @property
    def backend(self) -> str:
        """Whisper's, which the variant `ctranslate2` names itself."""
        return "faster-whisper" if self.variant == "ctranslate2" else self.whisper_backend

    @property
    def rungs(self) -> tuple[str, ...]:
        """Smaller Whispers in their order."""
        if self.fallback == "auto":
            if self.whisper_weights == "local":
                return ()
            ladder = POCKET_LADDER if self.whisper in catalog.POCKET_SIZES else LADDER
            own = catalog.whisper(self.whisper).parameters
            return tuple(s for s in ladder if catalog.whisper(s).parameters < own)
        names = [name.strip() for name in self.fallback.split(",") if name.strip()]
        return () if names == ["none"] else tuple(catalog.whisper(name).name for name in names)

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def token(self) -> str:
        """The bearer token; '' where none is asked for."""
        if not self.token_file:
            return os.environ.get(TOKEN_VARIABLE, "").strip()
        try:
            token = Path(self.token_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(
                f"token file {self.token_file!r} cannot be read: {error}"
            ) from None
        if not token:
            raise ParameterError(f"token file {self.token_file!r} is empty")
        return token

    @property
    def max_upload_bytes(self) -> int:
        return int(self.max_upload_mb * MB)

    @property
    def most_requests(self) -> int:
        """Under way at once: those that wait and are at work, decoded or uploaded."""
        return 4 * self.queue + 64

    @property
    def room_bytes(self) -> int | None:
        return int(self.room_gb * GB) or None
