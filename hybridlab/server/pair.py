"""From settings to lanes: the workers, the device as they see it, what fits beside the weights."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hybridlab import catalog
from hybridlab.devices import CpuDevice, CudaDevice, Device, card_of, resolve_device
from hybridlab.devices.cores import SharedBoard
from hybridlab.errors import UnavailableError
from hybridlab.models.base import Role, TenantSpec, resolve_dtype
from hybridlab.models.remote import RemoteAnalyst, RemoteTranscriber
from hybridlab.processes.mps import multi_process_service
from hybridlab.processes.workers import Worker
from hybridlab.server.admission import Admission
from hybridlab.server.lane import Lane, Turns
from hybridlab.server.memory import SharedMemory
from hybridlab.server.room import Room
from hybridlab.server.settings import Settings
from hybridlab.server.tenant import WorkerTenant
from hybridlab.server.upkeep import Policy


@dataclass(frozen=True)
class Facts:
    """The device as a worker sees it: this process imports no torch and touches no GPU."""

    device: str
    #: The catalog's card, '' for a host or a card that it does not know.
    card: str
    capacity_bytes: int
    voxtral_dtype: str
    whisper_dtype: str


def look(settings: Settings) -> Facts:
    """In a worker. `UnavailableError` for a device or a dtype that is not there."""
    device = resolve_device(settings.device)
    card = card_of(device)
    cpu = device.kind == "cpu" or settings.sharing.whisper_on_cpu
    backend = settings.backend
    return Facts(
        device=device.name,
        card=card.name if card is not None else "",
        capacity_bytes=device.capacity_bytes(),
        voxtral_dtype=resolve_dtype(
            settings.voxtral_dtype, backend="transformers", device=device, role="analyst"
        ),
        whisper_dtype=resolve_dtype(
            settings.whisper_dtype,
            backend=backend,
            device=CpuDevice() if cpu else device,
            role="transcriber",
        ),
    )


def free_bytes(device: str) -> int:
    """In a worker: what requests may take of the device now that all is loaded."""
    return resolve_device(device).free_bytes()


class Pair:
    """The tenants that are served, their workers and their lanes; `close` ends the workers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sharing = settings.sharing
        self._stack = ExitStack()
        with Worker("scout") as scout:
            self.facts = scout.call(look, settings)
        self.device = self._device(self.facts.device)
        self.card = catalog.CARDS.get(self.facts.card, catalog.HOST)
        self.host = self.device if self.device.kind == "cpu" else CpuDevice()
        if self.sharing.whisper_on_cpu and self.device.kind == "cpu":
            raise UnavailableError(
                "the device is the CPU already; whisper-on-cpu needs a GPU beside it"
            )
        self._environment: dict[str, str] = {}
        if self.sharing.mps:
            self._environment = self._stack.enter_context(multi_process_service(self.device))
        self._board: SharedBoard | None = None
        if self.device.cores is not None:
            shared = Path(settings.cores_board) if settings.cores_board else None
            self._board = SharedBoard(shared)
            self._stack.callback(self._board.close)
        #: Highest bytes of each tenant's worker while it was loaded.
        self.load_peaks: dict[str, int] = {}
        self.memory = SharedMemory(self.device)
        self.room = self._room(self.memory)
        #: Of the host, for a Whisper that works beside the device; otherwise the same.
        self.host_memory, self.host_room = self.memory, self.room
        if self.sharing.whisper_on_cpu:
            self.host_memory = SharedMemory(self.host)
            self.host_room = self._room(self.host_memory)
        self.tenants = self._tenants()
        for memory in (self.memory, self.host_memory):
            memory.tenants = [t for t in self.tenants if t.remote.device is memory.device]

    @staticmethod
    def _device(name: str) -> Device:
        return CpuDevice() if name == "cpu" else CudaDevice(int(name.partition(":")[2]))

    def _room(self, memory: SharedMemory) -> Room:
        asked = self.settings.room_bytes
        return Room(asked or self.facts.capacity_bytes, memory=memory, fixed=asked is not None)

    def _tenants(self) -> list[WorkerTenant]:
        """Voxtral first, which is the larger to load."""
        settings, made = self.settings, []
        if settings.has_voxtral:
            made.append(self._tenant("analyst", [self.voxtral_spec()]))
        if settings.has_whisper:
            sizes = (settings.whisper, *settings.rungs)
            made.append(self._tenant("transcriber", [self.whisper_spec(size) for size in sizes]))
        return made

    def _tenant(self, role: Role, specs: list[TenantSpec]) -> WorkerTenant:
        kind = RemoteAnalyst if role == "analyst" else RemoteTranscriber
        on_host = role == "transcriber" and self.sharing.whisper_on_cpu
        remote = kind(
            specs[0],
            self.host if on_host else self.device,
            Worker(kind.name),
            board=self._board,
            environment=self._environment,
        )
        self._stack.callback(remote.worker.close)
        return WorkerTenant(remote, specs, self.sharing)

    def voxtral_spec(self) -> TenantSpec:
        settings = self.settings
        return TenantSpec(
            model=settings.voxtral,
            backend="transformers",
            weights=settings.source("voxtral"),
            dtype=self.facts.voxtral_dtype,
            path=settings.voxtral_path,
            seed=settings.seed,
        )

    def whisper_spec(self, size: str) -> TenantSpec:
        settings = self.settings
        return TenantSpec(
            model=size,
            backend=settings.backend,
            weights=settings.source(size),
            dtype=self.facts.whisper_dtype,
            path=settings.whisper_path,
            seed=settings.seed + 1,
        )

    def lanes(self) -> dict[str, Lane]:
        settings = self.settings
        turns = Turns(at_once=self.sharing.at_once)
        policy = Policy(
            batch=settings.batch if self.sharing.batches else 1,
            clean_every=settings.clean_every,
            restart_above=settings.restart_above,
            climb_after_s=settings.climb_after_s,
            request_timeout_s=settings.request_timeout_s,
        )
        return {
            tenant.name: Lane(
                tenant=tenant,
                admissions=[self._admission(tenant, spec) for spec in tenant.specs],
                turns=turns,
                room=self._room_of(tenant),
                policy=policy,
            )
            for tenant in self.tenants
        }

    def _admission(self, tenant: WorkerTenant, spec: TenantSpec) -> Admission:
        return Admission(
            spec=spec,
            analyst=tenant.remote.role == "analyst",
            card=catalog.HOST if tenant.remote.device.kind == "cpu" else self.card,
            room=self._room_of(tenant),
            max_audio_s=self.settings.max_audio_s,
            swapped=tenant.swaps,
        )

    def _room_of(self, tenant: WorkerTenant) -> Room:
        return self.room if tenant.remote.device is self.device else self.host_room

    def measure_room(self) -> None:
        """Once all is loaded: what is free is what requests may take, unless the settings say; and
        peaks are those of requests from here on."""
        for tenant in self.tenants:
            member = tenant.remote.member
            self.load_peaks[tenant.name] = member.peak_bytes()
            member.reset_peak()
        if self.settings.room_bytes is None and self.memory.free_bytes() is None:
            # without NVML only a worker can ask the driver, and that between two calls: once
            self.room.n_bytes = self.tenants[0].remote.worker.call(free_bytes, self.device.name)
        for room in {self.room, self.host_room}:
            room.settle()

    def close(self) -> None:
        self._stack.close()
