"""Parameters of every notebook: one flat pydantic model each, nothing coerced, nothing extra.

A notebook's parameter cell holds plain literals; its next cell calls `Params.from_namespace(
globals())`. Files in `params/` are flat too, so that papermill takes them as they stand; the runner
gives each notebook the names that it declares and refuses a name that no notebook knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, cast, get_args

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from hybridlab import catalog
from hybridlab.catalog.device_names import check_device, simulated_card
from hybridlab.config.choices import (
    AsrDtype,
    AsrModel,
    Backend,
    Language,
    LlmDtype,
    LlmModel,
    OneAtATime,
    defaults,
    variants,
)
from hybridlab.config.notebook_params import NotebookParams, unknown_parameter
from hybridlab.config.pair import (
    check_asr,
    check_asr_decoding,
    check_asr_models,
    check_language,
    check_revision,
    check_weights,
)
from hybridlab.config.preset_files import AUTO
from hybridlab.errors import ParameterError

WeightsSource = Literal["hub", "local", "random", "pocket"]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _token_limit(value: Any) -> Any:
    """One problem in words, where a union would tell one for each member."""
    if value == AUTO or (type(value) is int and value > 0):
        return value
    raise PydanticCustomError("token_limit", "write a whole number from 1 on, or auto")


#: A limit of tokens: a number, or whatever the model and its audio call for.
TokenLimit = Annotated[Count | Literal["auto"], BeforeValidator(_token_limit)]

Mitigation = Literal["none", "empty-cache", "expandable-segments", "restart"]
LimitKind = Literal["audio_s", "batch", "beams"]
#: Which models a strategy moves: the recogniser, or both in turn.
Swap = Literal["asr", "both"]

#: `question: ""` asks each clip the questions of its manifest.
FROM_MANIFEST = ""


class WhichAsr(NamedTuple):
    """A recogniser as parameters name it; `weights` are those of released ones."""

    model: str
    backend: str
    weights: str


class Params(NotebookParams, BaseModel):  # named again, so that ruff knows what a default is
    """What every notebook shares. `auto` is resolved against the device by `models.pair`.

    `max_new_tokens` is Voxtral's alone; by `auto` its transcripts have what the densest speech of
    that length needs, its answers 200. `asr_max_new_tokens` is Whisper's, of each window of up to
    30 s; by `auto` all that a window has room for, of random weights, which never end, 64.
    `llm_revision` and `asr_revision` are a commit, branch or tag of the hub's repository; empty is
    the newest when it is fetched.
    """

    #: Whether cases run in it; one that only reads what others measured may be drawn again.
    measures: ClassVar[bool] = True

    preset: str = AUTO
    llm_model: LlmModel = "pocket"
    llm_weights: WeightsSource = "pocket"
    llm_path: str = ""
    llm_revision: str = ""
    llm_dtype: LlmDtype = "auto"
    asr_model: AsrModel = "pocket-m"
    asr_backend: Backend = "openai-whisper"
    asr_weights: WeightsSource = "pocket"
    asr_path: str = ""
    asr_revision: str = ""
    asr_dtype: AsrDtype = "auto"
    device: str = "auto"
    card: str = "auto"
    audio: str = ""
    attention: catalog.Attention = "auto"
    decoding: catalog.Decoding = "loop"
    asr_decoding: catalog.AsrDecoding = "auto"
    memory_limit: str = ""
    language: Language = "en"
    question: str = FROM_MANIFEST
    max_new_tokens: TokenLimit = "auto"
    asr_max_new_tokens: TokenLimit = "auto"
    trials: Count = 4
    warmup: CountOrZero = 1
    seed: CountOrZero = 0
    timeout_s: Positive = 1800.0
    max_other_cpu_share: Share = 0.25
    output_dir: str = ""
    headless: bool = False
    inline: bool = False

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        check_weights("llm", self.llm_model, self.llm_weights, self.llm_path)
        check_asr(
            self.asr_model,
            self.asr_weights,
            self.asr_path,
            backend=self.asr_backend,
            dtype=self.asr_dtype,
        )
        check_revision("llm", self.llm_revision, self.llm_weights)
        check_revision("asr", self.asr_revision, self.asr_weights, backend=self.asr_backend)
        check_asr_decoding(self.asr_decoding, self.asr_weights)
        check_language([self.llm_model, self.asr_model], self.language)
        for name in (self.card, self.memory_limit):
            if name not in ("auto", ""):
                catalog.card(name)
        check_device(self.device)
        if self.inline and simulated_card(self.device):
            raise ParameterError(
                f"device {self.device!r} needs processes of its own; set inline to false"
            )
        if self.audio and not Path(self.audio).expanduser().exists():
            raise ParameterError(
                f"audio {self.audio!r} does not exist; name an audio file, a folder, or a .jsonl, "
                ".json, .csv or .tsv manifest, or leave it empty for the clips that ship with "
                "hybridlab"
            )
        return self

    @property
    def pocket_words(self) -> str:
        """What to say where the reader's own audio meets models that know the shipped clips alone;
        '' where it does not."""
        from hybridlab.audio import is_shipped

        if is_shipped(self.audio):
            return ""
        return catalog.pocket_words(self.llm_model, *(one.model for one in self.recognizers()))

    def recognizers(self) -> list[WhichAsr]:
        """The recognisers that this notebook's cases load, the pair's first."""
        return [WhichAsr(self.asr_model, self.asr_backend, self.asr_weights)]

    def _in_backends(self, backends: Iterable[str]) -> list[WhichAsr]:
        """The pair's recogniser in other backends than its own; '' is its own."""
        own = dict.fromkeys(name for name in backends if name not in ("", self.asr_backend))
        return [WhichAsr(self.asr_model, name, self.asr_weights) for name in own]

    @classmethod
    def named(cls, notebook: str) -> type[Self]:
        """The same parameters for a notebook of this name beside the project's own."""
        fields = {"__module__": cls.__module__, "notebook": notebook}
        return cast(type[Self], type(cls.__name__, (cls,), fields))

    @classmethod
    def names_known(cls) -> set[str]:
        return all_parameter_names()


class SetupParams(Params):
    notebook: ClassVar[str] = "00_setup"


class VoxtralAloneParams(Params):
    notebook: ClassVar[str] = "01_voxtral_alone"


class BesideParams(Params):
    """`sizes_*` describe the Whispers of `asr_models`, measured one after the other, and of
    `quality_models`, whose text is held against the manifest's; `load_*` the ways in which the pair
    itself is loaded (no `load_backends`: its own). `sizes_new_tokens` is the work of random weights
    beside each other; whatever has words says them to their end."""

    notebook: ClassVar[str] = "02_whisper_beside_voxtral"

    asr_models: list[AsrModel] = list(catalog.WHISPER_SIZES)
    sizes_backend: Backend = "transformers"
    sizes_weights: WeightsSource = "random"
    sizes_dtype: AsrDtype = "auto"
    sizes_new_tokens: Count = 4
    load_orders: list[catalog.LoadOrder] = ["llm-first", "asr-first"]
    load_paths: list[catalog.LoadPath] = ["direct"]
    load_backends: list[Backend] = []
    load_dtypes: list[AsrDtype] = ["auto"]
    memory_budget_gb: NotNegative = 0.0
    quality_models: list[AsrModel] = ["pocket-s", "pocket-m"]

    def recognizers(self) -> list[WhichAsr]:
        sizes = dict.fromkeys([*self.asr_models, *self.quality_models])
        return [
            *super().recognizers(),
            *self._in_backends(self.load_backends),
            *(WhichAsr(name, self.sizes_backend, self.sizes_weights) for name in sizes),
        ]

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        check_asr_models(
            [*self.asr_models, *self.quality_models],
            self.sizes_weights,
            self.asr_path,
            backend=self.sizes_backend,
            dtype=self.sizes_dtype,
        )
        check_language([*self.asr_models, *self.quality_models], self.language)
        for backend in self.load_backends or [self.asr_backend]:
            for dtype in self.load_dtypes:
                check_asr(
                    self.asr_model, self.asr_weights, self.asr_path, backend=backend, dtype=dtype
                )
        return self


class LimitsParams(Params):
    """`fallback_new_tokens` is the work of random weights in the fallback chain."""

    notebook: ClassVar[str] = "03_memory_limits"

    scaling_audio_s: list[Positive] = [30.0, 120.0, 480.0]
    scaling_batches: list[Count] = [1, 4, 16]
    soak_cycles: Count = 40
    soak_requests: Count = 10
    soak_max_audio_s: Positive = 30.0
    soak_strategies: list[OneAtATime] = ["sequential", "swapping"]
    soak_mitigations: list[Mitigation] = list(get_args(Mitigation))
    mitigate_every: Count = 10
    attention_kinds: list[catalog.Attention] = list(catalog.ATTENTIONS)
    attention_audio_s: list[Positive] = [30.0, 300.0]
    limit_kinds: list[LimitKind] = list(get_args(LimitKind))
    limit_max: Count = 16
    limit_memory_gb: NotNegative = 0.0
    headroom_strategies: list[OneAtATime] = ["sequential", "parallel", "swapping"]
    headroom_repeats: CountOrZero = 4
    fallback_chain: list[AsrModel] = ["medium", "small", "base"]
    fallback_backend: Backend = "transformers"
    fallback_weights: WeightsSource = "random"
    fallback_new_tokens: Count = 4
    fallback_memory_gb: NotNegative = 0.0

    def recognizers(self) -> list[WhichAsr]:
        chain = self.fallback_chain
        steps = [WhichAsr(n, self.fallback_backend, self.fallback_weights) for n in chain]
        return [*super().recognizers(), *steps]

    @model_validator(mode="after")
    def _check_chain(self) -> Self:
        check_asr_models(
            self.fallback_chain, self.fallback_weights, self.asr_path, backend=self.fallback_backend
        )
        check_language(self.fallback_chain, self.language)
        return self


class StrategyParams(Params):
    """A race; below five rounds nothing is said of a difference."""

    rounds: Count = 5


class RaceParams(StrategyParams):
    """A race that ends with requests that come at their own times."""

    arrival_loads: list[Positive] = [0.3, 0.6, 0.9, 1.2]
    arrival_requests: Count = 24
    arrival_max_audio_s: Positive = 30.0
    arrival_arms: Count = 2


class SequentialParams(StrategyParams):
    notebook: ClassVar[str] = "04_sequential"

    solo_variants: list[Annotated[str, variants("solo")]] = defaults("solo")
    sequential_variants: list[Annotated[str, variants("sequential")]] = defaults("sequential")
    batch: Count = 4
    max_in_flight: Count = 2


class ParallelParams(RaceParams):
    notebook: ClassVar[str] = "05_parallel"

    parallel_variants: list[Annotated[str, variants("parallel")]] = defaults("parallel")
    container_rounds: Count = 1
    container_loads: list[Positive] = [0.3, 0.6, 0.9, 1.2]
    pipelined_variants: list[Annotated[str, variants("pipelined")]] = defaults("pipelined")
    interference_requests: Count = 4
    interference_repeats: CountOrZero = 5

    def recognizers(self) -> list[WhichAsr]:
        raced = [catalog.variant("parallel", name).backend for name in self.parallel_variants]
        return [*super().recognizers(), *self._in_backends(raced)]


class SwappingParams(RaceParams):
    notebook: ClassVar[str] = "06_swapping"

    swapping_variants: list[Annotated[str, variants("swapping")]] = defaults("swapping")
    swap: Swap = "asr"
    break_even_audio_s: list[Positive] = [15.0, 30.0, 60.0]
    break_even_repeats: Count = 5


class VerdictParams(Params):
    notebook: ClassVar[str] = "07_verdict"
    measures: ClassVar[bool] = False

    run: str = ""
    claims: str = ""
    min_margin_bytes: CountOrZero = 0
    max_p95_s: NotNegative = 0.0
    max_wer: NotNegative = 1.0


NOTEBOOKS: dict[str, type[Params]] = {
    model.notebook: model
    for model in (
        SetupParams,
        VoxtralAloneParams,
        BesideParams,
        LimitsParams,
        SequentialParams,
        ParallelParams,
        SwappingParams,
        VerdictParams,
    )
}


def all_parameter_names() -> set[str]:
    """Every name that some notebook declares."""
    return {name for model in NOTEBOOKS.values() for name in model.model_fields}


def parameters_of(name: str, notebooks: Mapping[str, type[Params]] | None = None) -> type[Params]:
    """The model of a notebook, named in full or by its number ('02'); of the project's own, or of
    `notebooks`."""
    known = NOTEBOOKS if notebooks is None else notebooks
    for notebook, model in known.items():
        if name == notebook or (name == notebook[:2] and name.isdigit()):
            return model
    raise ParameterError.unknown_name("notebook", name, known)


def split(values: Mapping[str, Any], models: Iterable[type[Params]]) -> dict[str, Params]:
    """A flat file's values as validated parameters of each notebook that declares them."""
    known = all_parameter_names()
    for name in values:
        if name not in known:
            raise unknown_parameter(name, sorted(known))
    resolved = {}
    for model in models:
        own = {n: v for n, v in values.items() if n in model.model_fields}
        resolved[model.notebook] = model.from_mapping(own)
    return resolved


def parse_override(name: str, text: str) -> Any:
    """`-p name value` from a command line, read as YAML would read the value in a file."""
    import yaml

    if name not in all_parameter_names():
        raise unknown_parameter(name, sorted(all_parameter_names()))
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
