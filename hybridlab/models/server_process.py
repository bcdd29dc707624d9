"""Servers of the lab as processes on loopback, each in place of a container: with an
interpreter, libraries and a decoder of its own, it shares nothing with the case but the machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence

from hybridlab.devices import Device, MemoryOwners, Reading
from hybridlab.devices.process_memory import (
    ProcessTree,
    ReportedMemory,
    ReportedProcessTree,
    RssProcessTree,
)
from hybridlab.errors import UnavailableError
from hybridlab.processes.fork_server import ADDRESS_VARIABLE

PROGRAM = (sys.executable, "-m", "hybridlab.cli")
#: Exit code of the command line for what the lab itself refuses, told in one line.
REFUSED = 2
STOP_S = 20.0
LOOK_EVERY_S = 0.05
#: What a server says once it takes requests.
READY = re.compile(r"(http://\S+) serves ")


class Service:
    """One command of the lab that serves, with its processes, which count as part of the case."""

    def __init__(self, name: str, arguments: Sequence[str], device: Device) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.device = device
        #: Variables that it has besides this process' own.
        self.environment: dict[str, str] = {}
        #: Where it takes requests; '' while it does not.
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._member: ProcessTree | None = None

    def launch(self) -> None:
        """Start its process, if it does not run; it takes requests later."""
        if self._process is not None:
            return
        without = (ADDRESS_VARIABLE, "HYBRIDLAB_TOKEN")  # processes of its own, open to loopback
        environment = {name: value for name, value in os.environ.items() if name not in without}
        # a file, unlike a pipe, need not be emptied; a case that is killed takes its group along
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._process = subprocess.Popen(
            [*PROGRAM, *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=environment | self.environment,
        )
        if self.device.is_host:
            self._member = RssProcessTree(self.name, self._process.pid)
        else:
            pid = self._process.pid
            self._member = ReportedProcessTree(self.name, pid, self.reported_memory)
        self.device.tracked_processes = (*self.device.tracked_processes, self._member)

    def start(self) -> None:
        """Returns when it takes requests, however long its weights take: the case that waits has a
        time limit of its own. `UnavailableError` with the server's own line where it refuses to
        start, `RuntimeError` where it ends otherwise."""
        self.launch()
        assert self._process is not None
        while not (ready := READY.search(self._log_text())):
            if (code := self._process.poll()) is not None:
                *_, last = ["nothing", *self._log_text().strip().splitlines()]
                fault = UnavailableError if code == REFUSED else RuntimeError
                last = last.removeprefix("hybridlab: ")
                raise fault(f"the server of {self.name} did not start: {last}")
            time.sleep(LOOK_EVERY_S)
        self.url = ready[1]

    def reported_memory(self) -> ReportedMemory:
        """Its bytes of a GPU, as it reports them: none, as long as nothing in it touches one."""
        return ReportedMemory()

    def _log_text(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def count(self) -> None:
        """Tell the device what of these processes is no request."""
        if self._member is not None:
            self._member.release()

    @property
    def overhead_bytes(self) -> int:
        """Of a host, what its processes hold at rest beside weights, as last counted."""
        return self._member.overhead_bytes if self._member is not None else 0

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it and wait until it is gone; again is allowed."""
        process, member = self._process, self._member
        if process is None or member is None:
            return
        member.leave()
        before_s = _children_s()
        process.terminate()
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()
            member.reaped(_children_s() - before_s)
            self._log.close()
            self._process, self.url = None, ""


class Server(Service):
    """One `hybridlab serve`. It runs from the first model's `enter` to the last one's `leave`;
    with it those `beside` it are launched, as containers start together."""

    def __init__(self, name: str, options: Sequence[str], device: Device) -> None:
        super().__init__(name, ["serve", *options], device)
        self.beside: Sequence[Server] = ()
        self._inside: set[str] = set()
        self._last_report = ReportedMemory()

    def enter(self, role: str) -> None:
        """As `start`, for the first one."""
        if not self.url:
            for server in self.beside:
                server.launch()
            self.start()
        self._inside.add(role)
        self.count()

    def leave(self, role: str) -> None:
        self._inside.discard(role)
        if not self._inside:
            self.stop()

    def count(self) -> None:
        if self._member is not None:
            self._member.weights_bytes = sum(self.weights_bytes(role) or 0 for role in self._inside)
        super().count()

    def weights_bytes(self, role: str) -> int | None:
        """As the server's own ledger has it."""
        owners = self.readings("hybridlab_ledger_bytes", "owner")
        found = owners.get((f"{role} weights",))
        return None if found is None else int(found)

    def reported_memory(self) -> ReportedMemory:
        """The sum of its workers; as before while it cannot be asked."""
        if self.url and self.runs:
            found = self.readings("hybridlab_model_bytes", "reading", "role")
            sums = {
                f"{reading}_bytes": sum(
                    int(n_bytes) for (name, _), n_bytes in found.items() if name == reading
                )
                for reading in ("used", "reserved", "load_peak", "request_peak")
            }
            self._last_report = ReportedMemory(**sums)
        return self._last_report

    def readings(self, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
        """A metric of its `/metrics` now: its values by those of these labels."""
        import httpx
        from prometheus_client.parser import text_string_to_metric_families

        text = httpx.get(f"{self.url}/metrics", trust_env=False).raise_for_status().text
        return {
            tuple(sample.labels[label] for label in labels): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric
        }


class FrontServer(Service):
    """A `hybridlab serve` that has both models from these servers, by role."""

    def __init__(self, servers: Mapping[str, Server], device: Device) -> None:
        super().__init__("front", [], device)
        self.servers = dict(servers)

    def enter(self) -> None:
        """Starts once all its servers run."""
        if self._process is None and all(server.url for server in self.servers.values()):
            urls = [f"--{role}-url={server.url}" for role, server in self.servers.items()]
            self.arguments = ["serve", "--host=127.0.0.1", "--port=0", "--device=cpu", *urls]
            self.start()
            self.count()


def beside_weights(device: Device, servers: Collection[Server], before: MemoryOwners) -> Reading:
    """What servers that are loaded hold of the device beside weights: on a host their processes; on
    a GPU the contexts that have come since `before`, which is what NVML has in use more than all
    allocators have reserved."""
    if device.is_host:
        return Reading(float(sum(server.overhead_bytes for server in servers)))
    then, now = (account.external.get("context") for account in (before, device.memory_owners()))
    if then is None or now is None:
        return Reading(None, f"contexts cannot be told: {device.external_bytes().reason}")
    return Reading(float(now - then))


def _children_s() -> float:
    """Processor time of all children that this process has waited for, and of theirs."""
    times = os.times()
    return times.children_user + times.children_system
