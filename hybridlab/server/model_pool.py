"""From settings to schedulers: the models' workers or servers, the device as they see it, what fits
beside the weights."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.devices import CpuDevice, planned_card, resolve_device
from hybridlab.errors import UnavailableError, WeightsError
from hybridlab.models.base import ModelSpec, resolve_dtype
from hybridlab.models.checkpoint import commits_of, pinned
from hybridlab.models.fetch_progress import Listener
from hybridlab.models.provision import fetch
from hybridlab.models.worker_model import WorkerLanguageModel, WorkerRecognizer
from hybridlab.processes.mps import multi_process_service
from hybridlab.processes.worker import Worker
from hybridlab.server.admission import Admission
from hybridlab.server.http_model_client import HttpModelClient
from hybridlab.server.memory import MemoryBudget, SharedMemory
from hybridlab.server.model_client import WorkerModelClient
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Role, Settings

log = logging.getLogger("hybridlab.server")


@dataclass(frozen=True)
class DeviceInfo:
    """The device as a worker sees it: this process imports no torch and touches no GPU."""

    device: str
    #: What requests are predicted for; None for a host.
    card: catalog.Card | None
    capacity_bytes: int
    dtypes: dict[Role, str]


def probe_device(settings: Settings) -> DeviceInfo:
    """In a worker. `UnavailableError` for a device or a dtype that is not there."""
    device = resolve_device(settings.device)
    asr_device = device if settings.served_variant.shares_device else CpuDevice()
    return DeviceInfo(
        device=device.name,
        card=None if device.is_host else planned_card(device),
        capacity_bytes=device.capacity_bytes(),
        dtypes={
            "llm": resolve_dtype(
                settings.llm_dtype, backend="transformers", device=device, role="llm"
            ),
            "asr": resolve_dtype(
                settings.asr.dtype, backend=settings.asr.backend, device=asr_device, role="asr"
            ),
        },
    )


def free_bytes(device: str) -> int:
    """In a worker: what requests may take of the device now that all is loaded."""
    return resolve_device(device).free_bytes()


def upstream_scheduler(role: Role, settings: Settings) -> ModelScheduler:
    """Of a model that another server has: it takes nothing of this device."""
    token, timeout_s = settings.upstream_token, settings.request_timeout_s
    client = HttpModelClient(role, settings.urls[role], token=token, timeout_s=timeout_s)
    budget, longest_s = MemoryBudget(0, fixed=True), settings.max_audio_s
    admission = Admission(
        role=role, spec=None, card=catalog.HOST, budget=budget, max_audio_s=longest_s
    )
    return ModelScheduler(client, [admission], None, budget, settings)


def fetched(
    specs: Mapping[Role, list[ModelSpec]], listener: Listener | None = None
) -> dict[Role, list[ModelSpec]]:
    """These specs with their weights on this machine, at one commit as long as the server runs,
    without smaller models whose weights cannot be had. `WeightsError` where a first one's cannot.
    """
    commits = commits_of(fetch([own[0] for own in specs.values()], listener=listener))
    kept: dict[Role, list[ModelSpec]] = {}
    for role, (first, *smaller) in specs.items():
        kept[role] = [pinned(first, commits)]
        for spec in smaller:
            try:
                own = commits_of(fetch([spec], listener=listener))
            except WeightsError as error:
                log.warning("there will be no %s to fall back to: %s", spec.model, error)
            else:
                kept[role].append(pinned(spec, own))
    return kept


class ModelPool:
    """The models that are served, and their schedulers; `close` ends the workers."""

    def __init__(self, settings: Settings, listener: Listener | None = None) -> None:
        """`listener` is told of weights that have to be fetched first."""
        self.settings = settings
        self.variant = settings.served_variant
        self._stack = ExitStack()
        with Worker("probe") as probe:
            self.info = probe.call(probe_device, settings)
        self.device = resolve_device(self.info.device)
        if not self.variant.shares_device and self.device.is_host:
            raise UnavailableError(
                "the device is the CPU already; whisper-on-cpu needs a GPU beside it"
            )
        self._environment: dict[str, str] = {}
        if self.variant.place == "workers-mps":
            self._environment = self._stack.enter_context(multi_process_service(self.device))
        self.memory = SharedMemory(self.device)
        self.budget = self._budget(self.memory)
        self._budgets = dict.fromkeys(settings.roles, self.budget)
        if not self.variant.shares_device:  # the ASR works on the host, beside the device
            self._budgets["asr"] = self._budget(SharedMemory(CpuDevice()))
        #: Highest bytes of each model's worker while it was loaded.
        self.load_peaks: dict[Role, int] = {}
        here = [role for role in settings.roles if role not in settings.urls]
        specs = {role: [self._spec(role, name) for name in settings.models(role)] for role in here}
        specs = fetched(specs, listener)
        self.models = [self._worker(role, specs[role]) for role in here]

    def _budget(self, memory: SharedMemory) -> MemoryBudget:
        asked = self.settings.request_memory_bytes
        return MemoryBudget(
            asked or self.info.capacity_bytes, memory=memory, fixed=asked is not None
        )

    def _worker(self, role: Role, specs: list[ModelSpec]) -> WorkerModelClient:
        kind = WorkerLanguageModel if role == "llm" else WorkerRecognizer
        memory = self._budgets[role].memory
        assert memory is not None
        local = len(self.settings.roles) - len(self.settings.urls)
        remote = kind(
            specs[0],
            memory.device,
            Worker(kind.name),
            concurrent_models=local if self.variant.concurrent else 1,
            environment=self._environment,
        )
        self._stack.callback(remote.worker.close)
        client = WorkerModelClient(remote, role, specs, self.variant)
        memory.models.append(client)
        return client

    def _spec(self, role: Role, model: str) -> ModelSpec:
        settings = self.settings
        return ModelSpec(
            model=model,
            backend="transformers" if role == "llm" else settings.asr.backend,
            attention=settings.attention if role == "llm" else "auto",
            weights=settings.source(role, model),
            dtype=self.info.dtypes[role],
            path=settings.llm_path if role == "llm" else settings.asr_path,
            revision=settings.revision(role, model),
            seed=settings.seed + (role == "asr"),
            asr_decoding=settings.asr_decoding,
        )

    def schedulers(self) -> dict[Role, ModelScheduler]:
        settings = self.settings
        # a model of another server has a device of its own
        lock = None if self.variant.concurrent or settings.urls else asyncio.Lock()
        local = {model.role: self._local_scheduler(model, lock) for model in self.models}
        urls = settings.urls
        return {
            role: upstream_scheduler(role, settings) if role in urls else local[role]
            for role in settings.roles
        }

    def _local_scheduler(
        self, client: WorkerModelClient, lock: asyncio.Lock | None
    ) -> ModelScheduler:
        settings, budget = self.settings, self._budgets[client.role]
        card = self.info.card or catalog.HOST
        admissions = [
            Admission(
                role=client.role,
                spec=spec,
                card=card if budget is self.budget else catalog.HOST,
                budget=budget,
                max_audio_s=settings.max_audio_s,
                swapped=client.swaps,
            )
            for spec in client.specs
        ]
        return ModelScheduler(client, admissions, lock, budget, settings)

    def measure_budget(self) -> None:
        """Once all is loaded: what is free is what requests may take, unless the settings say; and
        peaks are those of requests from here on."""
        for model in self.models:
            member = model.remote.member
            self.load_peaks[model.role] = member.peak_bytes()
            member.reset_peak()
        unknown = self.settings.request_memory_bytes is None and self.memory.free_bytes() is None
        if unknown and self.models:
            # without NVML only a worker can ask the driver, and that between two calls: once
            worker = self.models[0].remote.worker
            self.budget.n_bytes = worker.call(free_bytes, self.device.name)
        for budget in set(self._budgets.values()):
            budget.settle()

    def close(self) -> None:
        self._stack.close()
