"""The options of `hybridlab serve`: one model, from which the command line, its help and the table
in docs/serving.md are generated. All of it is checked before anything is loaded."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hybridlab import catalog
from hybridlab.analysis.pick import AUTO
from hybridlab.catalog.device_names import check_device, simulated_card, spellings
from hybridlab.config.choices import AsrDtype, Language, LlmDtype, LlmModel, OneOf
from hybridlab.config.notebook_params import first_problem
from hybridlab.config.pair import (
    check_asr,
    check_fallbacks,
    check_language,
    check_revision,
    check_weights,
)
from hybridlab.config.params import Count, CountOrZero, WeightsSource
from hybridlab.devices import card_of, resolve_device
from hybridlab.devices.visible import gpu_count
from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.server.model_names import known_names, model_id
from hybridlab.server.recognizer import POCKET, Recognizer, chosen
from hybridlab.units import GB

Role = Literal["asr", "llm"]
TOKEN_VARIABLE = "HYBRIDLAB_TOKEN"
UPSTREAM_TOKEN_VARIABLE = "HYBRIDLAB_UPSTREAM_TOKEN"
#: Smaller models to fall back to, of the released sizes and of those that ship with the package.
FALLBACK_SIZES = ("large-v3", "medium", "base")
POCKET_FALLBACK_SIZES = ("pocket-m", "pocket-s")
AUTO_ASR = f"auto: the pick of hybridlab plan for the card; beside a pocket model {POCKET}"
MB = 10**6
#: Why a variant of the lab is not served.
ONE_PROCESS = "works on one request within one process, and the server has a worker for each model"
MEASURED_HERE = "is how notebook 05 measures this very server, with --only for one of two"
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


def _listed(text: str) -> list[str]:
    """What is written with commas between."""
    return [part.strip() for part in text.split(",") if part.strip()]


def is_loopback(host: str) -> bool:
    """Whether a name, or an address as a URL has it, is this machine's for itself alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _option(default: Any, description: str) -> Any:
    return Field(default, description=description)


class Settings(BaseModel):
    """One field for each option; its description is the option's help."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    llm_model: LlmModel = _option("pocket", "audio language model, a Voxtral")
    llm_weights: Literal["auto"] | WeightsSource = _option(
        "auto", "where its weights come from; auto: pocket for pocket models, else hub"
    )
    llm_path: str = _option("", "folder of its local weights")
    llm_revision: str = _option(
        "", "commit, branch or tag of its weights on the hub; '': what is here, else the newest"
    )
    llm_dtype: LlmDtype = _option("auto", "dtype of its weights; auto: the device's own")
    llm_url: str = _option("", "use the LLM of another hybridlab serve at this address")
    attention: catalog.Attention = _option("auto", "how the LLM computes attention")
    asr_model: Annotated[str, OneOf(lambda: ["auto", *catalog.WHISPERS])] = _option(
        "auto", f"speech recogniser, a size of Whisper; {AUTO_ASR}"
    )
    asr_backend: Annotated[str, OneOf(lambda: ["auto", *catalog.BACKENDS])] = _option(
        "auto", "library that runs it; auto: chosen with the size"
    )
    asr_weights: Literal["auto"] | WeightsSource = _option(
        "auto", "where its weights come from, as of --llm-weights"
    )
    asr_path: str = _option("", "folder of its local weights")
    asr_revision: str = _option("", "commit, branch or tag of its weights, as of --llm-revision")
    asr_dtype: AsrDtype = _option("auto", "dtype of its weights; auto: the backend's own")
    asr_url: str = _option("", "use the ASR of another hybridlab serve at this address")
    asr_decoding: catalog.AsrDecoding = _option(
        "auto", "whether the ASR decodes with timestamps; auto: where its weights are released ones"
    )
    beams: Count = _option(1, "beams of the ASR's transcripts; 1: the likeliest token each time")
    model_alias: str = _option("", "more names for models, as NAME=ID,NAME=ID")
    only: Literal["", "asr", "llm"] = _option("", "serve one of the two alone")
    strategy: Annotated[str, OneOf(lambda: catalog.STRATEGIES)] = _option(
        "sequential", "how the two share the device"
    )
    variant: str = _option("batched", "variant of the strategy; a wrong one is answered with all")
    fallback: str = _option(
        "auto", "smaller ASR models for when memory runs out, as medium,base; auto; none"
    )
    device: str = _option("auto", spellings())
    seed: CountOrZero = _option(0, "seed of random weights")

    host: str = _option("127.0.0.1", "address; any but loopback needs a bearer token")
    port: Annotated[int, Field(ge=0, le=65535)] = _option(8000, "port; 0: any that is free")
    token_file: str = _option("", f"file with the bearer token; else ${TOKEN_VARIABLE}")
    allowed_host: str = _option(
        "", "names, with commas, by which a server on loopback may be called beside its own; *: any"
    )
    cors_origin: str = _option(
        "", "origins, with commas, whose pages may use the server in a browser; *: any"
    )

    language: Language = _option(
        "", "of a transcription that names none: a code or an English name; '' or auto: detected"
    )
    batch: Count = _option(8, "most requests of a kind in one call to a model")
    max_queue: Count = _option(64, "most requests of a kind that wait, and questions in a request")
    max_upload_mb: Positive = _option(25.0, "largest upload in MB; base64 may take a third more")
    max_audio_s: Positive = _option(
        catalog.VOXTRAL_MAX_ANSWER_S, "longest audio in seconds, counted while it is decoded"
    )
    max_new_tokens: Count = _option(1024, "most tokens of an answer")
    request_timeout_s: Positive = _option(
        300.0, "seconds that an upload may take, and again the wait and the work together"
    )
    decode_timeout_s: Positive = _option(30.0, "seconds that decoding one upload may take")
    decoders: Count = _option(1, "processes that decode uploads")
    request_memory_gb: NotNegative = _option(
        0.0, "GB of the device that requests may take together; 0: what is free"
    )
    retry_larger_after_s: Positive = _option(
        60.0, "seconds until a larger ASR model is tried again; doubled after each failure"
    )
    drain_s: NotNegative = _option(
        0.5, "seconds between SIGTERM ('stopping') and no more connections"
    )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`; every problem is a one-line `ParameterError` naming the fix."""
        for name in values:
            if name not in cls.model_fields:
                raise ParameterError.unknown_name("option", name, cls.model_fields)
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParameterError(f"parameter {first_problem(error)}") from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_urls()
        self._check_models()
        self._check_variant()
        self._check_aliases()
        self._check_names()
        check_device(self.device)
        token = self.token  # whatever the address: a file that is not there is an error
        if not self.loopback and not token:
            raise ParameterError(
                f"host {self.host!r} can be reached from elsewhere and needs a bearer token: put "
                f"one into the variable {TOKEN_VARIABLE} or into --token-file, or bind to 127.0.0.1"
            )
        return self

    def _check_models(self) -> None:
        check_weights("llm", self.llm_model, self.source("llm", self.llm_model), self.llm_path)
        check_revision("llm", self.llm_revision, self.source("llm", self.llm_model))
        released = self.source("asr", self.asr.model)
        check_revision("asr", self.asr_revision, released, backend=self.asr.backend)
        sizes = self.models("asr")
        for size in sizes:
            check_asr(
                size,
                self.source("asr", size),
                self.asr_path,
                backend=self.asr.backend,
                dtype=self.asr.dtype,
            )
        check_fallbacks(sizes, self.asr_weights)
        if "asr" not in self.urls:  # another server says itself what its model does not know
            transcriber = self.asr.model if "asr" in self.roles else self.llm_model
            check_language([transcriber], self.language)

    def _check_variant(self) -> None:
        served = self.served_variant
        if self.only and not self._is_default("variant"):
            raise ParameterError(
                f"only {self.only} shares with no other model; leave --strategy and --variant out"
            )
        if served.from_disk and self.source("asr", self.asr.model) == "random":
            raise ParameterError("random weights have no files; use swapping/reload-cached")

    def _check_urls(self) -> None:
        for role, url in self.urls.items():
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ParameterError(
                    f"--{role}-url {url!r} is no address of a server; write one like "
                    "http://127.0.0.1:8001"
                )
            if role not in self.roles:
                raise ParameterError(
                    f"--{role}-url names a model beside those served, {', '.join(self.roles)}"
                )
            own = [f"{role}_{name}" for name in ("model", "weights", "revision", "dtype")]
            own += ["asr_decoding", "beams"] if role == "asr" else []
            if not all(map(self._is_default, own)):
                raise ParameterError(
                    f"the server at --{role}-url has its own model; leave the other --{role} "
                    "options out"
                )

    def _check_aliases(self) -> None:
        """Of models here: another server tells its names once it is ready."""
        here = [role for role in self.roles if role not in self.urls]
        ids = {role: [self.model_id(role, name) for name in self.models(role)] for role in here}
        known = {name for role, own in ids.items() for name in known_names(role, own)}
        for name, model in self.aliases.items():
            if not self.urls and model.lower() not in known:
                listed = ", ".join(own[0] for own in ids.values())
                raise ParameterError(
                    f"--model-alias {name}={model}: {model!r} is not served; choose one of: "
                    f"{listed}"
                )

    def _check_names(self) -> None:
        for origin in self.cors_origins:
            parts = urlsplit(origin)
            bare = parts.scheme in ("http", "https") and parts.netloc
            if origin != "*" and (not bare or f"{parts.scheme}://{parts.netloc}" != origin):
                raise ParameterError(
                    f"--cors-origin {origin!r} is no origin; write one like "
                    "https://app.example.org, without a path"
                )
        if self.allowed_hosts and not self.loopback:
            raise ParameterError(
                f"--allowed-host is for a server on loopback; on {self.host} it answers to every "
                "name"
            )
        for name in self.allowed_hosts:
            if "/" in name or (":" in name and not name.startswith("[")):
                raise ParameterError(
                    f"--allowed-host {name!r} is no name; write it without a port, like "
                    "host.docker.internal"
                )

    def _is_default(self, name: str) -> bool:
        return bool(getattr(self, name) == type(self).model_fields[name].default)

    # ------------------------------------------------------------------------------- models

    @property
    def served_variant(self) -> catalog.Variant:
        """`UnavailableError` for a variant that a worker for each model cannot have."""
        found = catalog.variant(self.strategy, self.variant)
        if found.nearest:
            why = MEASURED_HERE if found.in_servers else ONE_PROCESS
            nearest = found.nearest if "/" in found.nearest else f"{self.strategy}/{found.nearest}"
            raise UnavailableError(f"{self.strategy}/{self.variant} {why}; use {nearest}")
        return found

    @property
    def roles(self) -> tuple[Role, ...]:
        """What is served, the LLM first, which is the larger to load."""
        if self.only:
            return (self.only,)
        return ("llm", "asr") if catalog.strategy(self.strategy).has_asr else ("llm",)

    @property
    def urls(self) -> dict[Role, str]:
        """Models that other servers have."""
        urls: dict[Role, str] = {"llm": self.llm_url, "asr": self.asr_url}
        return {role: url for role, url in urls.items() if url}

    def source(self, role: Role, model: str) -> str:
        """Where a model's weights come from."""
        weights = self.llm_weights if role == "llm" else self.asr_weights
        return catalog.source_of(model, weights) if weights == "auto" else weights

    def models(self, role: Role) -> tuple[str, ...]:
        """The model of this role, and smaller ones that can take its place, from large to small."""
        return (self.llm_model,) if role == "llm" else (self.asr.model, *self.fallback_models)

    def revision(self, role: Role, model: str) -> str:
        """Of the model that is named; a smaller one in its place has a repository of its own."""
        if role == "llm":
            return self.llm_revision
        return self.asr_revision if model == self.asr.model else ""

    def model_id(self, role: Role, model: str) -> str:
        return model_id(role, model, self.source(role, model))

    @cached_property
    def aliases(self) -> dict[str, str]:
        """What each more name stands for, the names in lower case."""
        found = {}
        for pair in _listed(self.model_alias):
            name, _, model = (part.strip() for part in pair.partition("="))
            if not name or not model:
                raise ParameterError(
                    f"--model-alias {pair!r} is no pair; write NAME=ID, as whisper-1=voxtral-pocket"
                )
            found[name.lower()] = model
        return found

    @cached_property
    def asr(self) -> Recognizer:
        """The ASR that is served, `auto` filled in. `ParameterError` where no size is named and
        none can be picked."""
        backend = catalog.variant(self.strategy, self.variant).backend or self.asr_backend
        asked = Recognizer(self.asr_model, backend, self.asr_dtype)
        here = "asr" in self.roles and "asr" not in self.urls
        voxtral = catalog.voxtral(self.llm_model)
        if asked.model == AUTO and (voxtral.shipped or not here):
            asked = asked._replace(model=POCKET)
        if AUTO not in asked or not here or asked.model in catalog.POCKET_SIZES:
            return asked.elsewhere()
        llm_dtype = None if self.llm_dtype == AUTO else self.llm_dtype
        kept = {"voxtral": voxtral, "llm_dtype": llm_dtype, "attention": self.attention}
        return chosen(asked, self._asr_card, **kept)

    @property
    def _asr_card(self) -> catalog.Card | None:
        """The catalog's card that the ASR is on; None for a host and for one that is not known.
        Torch, which `resolve_device` asks about a GPU, is not imported where there is none."""
        if self.device == "cpu" or not self.served_variant.shares_device:
            return None
        if self.device == "auto" and not gpu_count():
            return None
        return simulated_card(self.device) or card_of(resolve_device(self.device))

    @property
    def fallback_models(self) -> tuple[str, ...]:
        """Smaller ASR models, from large to small."""
        if self.fallback == "auto":
            if self.asr_weights == "local":
                return ()
            own = catalog.whisper(self.asr.model)
            known = POCKET_FALLBACK_SIZES if own.shipped else FALLBACK_SIZES
            return tuple(n for n in known if catalog.whisper(n).parameters < own.parameters)
        names = _listed(self.fallback)
        return () if names == ["none"] else tuple(catalog.whisper(name).name for name in names)

    # ------------------------------------------------------------------------------- network

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        return tuple(name.lower() for name in _listed(self.allowed_host))

    @property
    def cors_origins(self) -> tuple[str, ...]:
        return tuple(origin.rstrip("/") for origin in _listed(self.cors_origin))

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
    def upstream_token(self) -> str:
        """What the servers at --asr-url and --llm-url are shown."""
        return os.environ.get(UPSTREAM_TOKEN_VARIABLE, "").strip() or self.token

    # -------------------------------------------------------------------------------- limits

    @property
    def max_upload_bytes(self) -> int:
        return int(self.max_upload_mb * MB)

    @property
    def max_requests(self) -> int:
        """In progress at once: those that wait and are at work, decoded or uploaded."""
        return 4 * self.max_queue + 64

    @property
    def request_memory_bytes(self) -> int | None:
        return int(self.request_memory_gb * GB) or None
