"""From settings to schedulers: the models' workers or servers, the device as they see it, what fits
beside the weights."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.devices import CpuDevice, CudaDevice, Device, card_of, resolve_device
from hybridlab.errors import UnavailableError
from hybridlab.models.base import ModelSpec, resolve_dtype
from hybridlab.models.worker_model import WorkerLanguageModel, WorkerRecognizer
from hybridlab.processes.mps import multi_process_service
from hybridlab.processes.worker import Worker
from hybridlab.server.admission import Admission
from hybridlab.server.http_model_client import HttpModelClient
from hybridlab.server.memory import SharedMemory
from hybridlab.server.memory_budget import MemoryBudget
from hybridlab.server.model_client import WorkerModelClient
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Role, Settings
from hybridlab.server.supervisor import SchedulerConfig

#: Calls at the same time to a model of another server, which puts them into batches itself.
UPSTREAM_CALLS = 16


@dataclass(frozen=True)
class DeviceInfo:
    """The device as a worker sees it: this process imports no torch and touches no GPU."""

    device: str
    #: The catalog's card, '' for a host or a card that it does not know.
    card: str
    capacity_bytes: int
    llm_dtype: str
    asr_dtype: str


def probe_device(settings: Settings) -> DeviceInfo:
    """In a worker. `UnavailableError` for a device or a dtype that is not there."""
    device = resolve_device(settings.device)
    card = card_of(device)
    asr_device = CpuDevice() if settings.sharing.asr_on_cpu else device
    return DeviceInfo(
        device=device.name,
        card=card.name if card is not None else "",
        capacity_bytes=device.capacity_bytes(),
        llm_dtype=resolve_dtype(
            settings.llm_dtype, backend="transformers", device=device, role="llm"
        ),
        asr_dtype=resolve_dtype(
            settings.asr_dtype, backend=settings.backend, device=asr_device, role="asr"
        ),
    )


def free_bytes(device: str) -> int:
    """In a worker: what requests may take of the device now that all is loaded."""
    return resolve_device(device).free_bytes()


def upstream_scheduler(role: Role, settings: Settings) -> ModelScheduler:
    """Of a model that another server has: it takes nothing of this device."""
    timeout_s = settings.request_timeout_s
    token, url = settings.upstream_token, settings.urls[role]
    client = HttpModelClient(role, url, token=token, timeout_s=timeout_s)
    budget = MemoryBudget(0, fixed=True)
    admission = Admission(
        role=role,
        spec=None,
        card=catalog.HOST,
        budget=budget,
        max_audio_s=settings.max_audio_s,
    )
    config = SchedulerConfig(batch=1, calls=UPSTREAM_CALLS, request_timeout_s=timeout_s)
    return ModelScheduler(client, [admission], None, budget, config)


class ModelPool:
    """The models that are served, and their schedulers; `close` ends the workers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sharing = settings.sharing
        self._stack = ExitStack()
        with Worker("probe") as probe:
            self.info = probe.call(probe_device, settings)
        self.device = self._device(self.info.device)
        self.card = catalog.CARDS.get(self.info.card, catalog.HOST)
        self.host = self.device if self.device.kind == "cpu" else CpuDevice()
        if self.sharing.asr_on_cpu and self.device.kind == "cpu":
            raise UnavailableError(
                "the device is the CPU already; whisper-on-cpu needs a GPU beside it"
            )
        self._environment: dict[str, str] = {}
        if self.sharing.mps:
            self._environment = self._stack.enter_context(multi_process_service(self.device))
        #: Highest bytes of each model's worker while it was loaded.
        self.load_peaks: dict[Role, int] = {}
        self.memory = SharedMemory(self.device)
        self.budget = self._budget(self.memory)
        #: Of the host, for an ASR that works beside the device; otherwise the same.
        self.host_memory, self.host_budget = self.memory, self.budget
        if self.sharing.asr_on_cpu:
            self.host_memory = SharedMemory(self.host)
            self.host_budget = self._budget(self.host_memory)
        self.models = [self._worker(role) for role in settings.roles if role not in settings.urls]
        for memory in (self.memory, self.host_memory):
            memory.models = [m for m in self.models if m.remote.device is memory.device]

    @staticmethod
    def _device(name: str) -> Device:
        return CpuDevice() if name == "cpu" else CudaDevice(int(name.partition(":")[2]))

    def _budget(self, memory: SharedMemory) -> MemoryBudget:
        asked = self.settings.request_memory_bytes
        return MemoryBudget(
            asked or self.info.capacity_bytes, memory=memory, fixed=asked is not None
        )

    def _worker(self, role: Role) -> WorkerModelClient:
        kind = WorkerLanguageModel if role == "llm" else WorkerRecognizer
        on_host = role == "asr" and self.sharing.asr_on_cpu
        specs = [self.llm_spec()]
        if role == "asr":
            sizes = (self.settings.asr_model, *self.settings.fallback_models)
            specs = [self.asr_spec(size) for size in sizes]
        remote = kind(
            specs[0],
            self.host if on_host else self.device,
            Worker(kind.name),
            concurrent_models=self._concurrent_models(),
            environment=self._environment,
        )
        self._stack.callback(remote.worker.close)
        return WorkerModelClient(remote, role, specs, self.sharing)

    def _concurrent_models(self) -> int:
        """How many models compute here at the same time."""
        local = [role for role in self.settings.roles if role not in self.settings.urls]
        return len(local) if self.sharing.at_once else 1

    def llm_spec(self) -> ModelSpec:
        settings = self.settings
        return ModelSpec(
            model=settings.llm_model,
            backend="transformers",
            weights=settings.llm_source,
            dtype=self.info.llm_dtype,
            path=settings.llm_path,
            seed=settings.seed,
        )

    def asr_spec(self, size: str) -> ModelSpec:
        settings = self.settings
        return ModelSpec(
            model=size,
            backend=settings.backend,
            weights=settings.asr_source(size),
            dtype=self.info.asr_dtype,
            path=settings.asr_path,
            seed=settings.seed + 1,
        )

    def schedulers(self) -> dict[Role, ModelScheduler]:
        settings = self.settings
        # a model of another server has a device of its own
        lock = None if self.sharing.at_once or settings.urls else asyncio.Lock()
        local = {model.role: self._local_scheduler(model, lock) for model in self.models}
        urls = settings.urls
        return {
            role: upstream_scheduler(role, settings) if role in urls else local[role]
            for role in settings.roles
        }

    def _local_scheduler(
        self, client: WorkerModelClient, lock: asyncio.Lock | None
    ) -> ModelScheduler:
        settings, device = self.settings, client.remote.device
        budget = self.budget if device is self.device else self.host_budget
        config = SchedulerConfig(
            batch=settings.batch if self.sharing.batches else 1,
            clear_cache_every=settings.clear_cache_every,
            restart_fragmentation=settings.restart_fragmentation,
            retry_larger_after_s=settings.retry_larger_after_s,
            request_timeout_s=settings.request_timeout_s,
        )
        admissions = [
            Admission(
                role=client.role,
                spec=spec,
                card=catalog.HOST if device.kind == "cpu" else self.card,
                budget=budget,
                max_audio_s=settings.max_audio_s,
                swapped=client.swaps,
            )
            for spec in client.specs
        ]
        return ModelScheduler(client, admissions, lock, budget, config)

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
        for budget in {self.budget, self.host_budget}:
            budget.settle()

    def close(self) -> None:
        self._stack.close()
