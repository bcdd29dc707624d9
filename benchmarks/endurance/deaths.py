"""Workers that are killed under load, and the server's own end under load."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from benchmarks.endurance.load import TIMEOUT_S, Load, latencies, send, tally
from benchmarks.endurance.server import Running
from hybridlab.devices import procfs

#: Two ticks of the kernel's clock of processor time.
LOOK_S = 0.02
#: Seconds of load around the moment of the SIGTERM.
BEFORE_S = 4.0
#: httpx's errors for a connection that the kernel refused or reset.
NOT_ACCEPTED = ("ConnectError", "ReadError", "WriteError")
#: Kinds of request that need a worker to be answered.
NEEDS = {
    "asr": ("transcription", "hybrid", "hybrid-stream"),
    "llm": ("chat", "chat-stream", "hybrid", "hybrid-stream"),
    "decoder": ("transcription", "chat", "chat-stream", "hybrid", "hybrid-stream"),
}


async def kill(
    server: Running, load: Load, worker: str, *, rate_rps: float, seconds: float
) -> dict[str, Any]:
    """SIGKILL to a worker in the middle of this load."""
    pid = server.processes()[worker]
    others = {name: p for name, p in server.processes().items() if name != worker}
    loading = asyncio.create_task(load.at(rate_rps, seconds))
    await asyncio.sleep(seconds / 4)
    await _at_work(pid)
    os.kill(pid, signal.SIGKILL)
    killed_s = time.monotonic()
    outcomes = await loading
    under_way = [o for o in outcomes if o.sent_s < killed_s < o.done_s]
    again_s = [
        outcome.done_s - killed_s
        for outcome in outcomes
        if outcome.sent_s > killed_s and outcome.kind in NEEDS[worker] and outcome.fate == "right"
    ]
    now = server.processes()
    return {
        **tally(outcomes),
        "under_way": tally(under_way),
        "answers_again_s": min(again_s, default=None),
        "latency": latencies(outcomes),
        "replaced": worker in now and now[worker] != pid,
        "others_untouched": others == {name: p for name, p in now.items() if name != worker},
    }


async def _at_work(pid: int) -> None:
    """Wait until this process uses a processor."""
    while True:
        before = procfs.cpu_seconds(pid)
        await asyncio.sleep(LOOK_S)
        if procfs.cpu_seconds(pid) != before:
            return


async def terminate(server: Running, load: Load, *, rate_rps: float) -> dict[str, Any]:
    """SIGTERM in the middle of a load that goes on until the server has ended. A request whose
    connection the kernel refused, or reset as it closed the socket, was not accepted. The load must
    keep no connection: a client could else send into one that is just being closed."""
    before = asyncio.create_task(load.at(rate_rps, BEFORE_S))
    await asyncio.sleep(BEFORE_S / 2)
    server.process.send_signal(signal.SIGTERM)
    told_s, tasks = time.monotonic(), []
    while server.process.poll() is None and time.monotonic() < told_s + TIMEOUT_S:
        tasks.append(asyncio.create_task(send(load.client, load.next())))
        await asyncio.sleep(1 / rate_rps)
    outcomes = [*await before, *await asyncio.gather(*tasks)]
    code = await asyncio.to_thread(server.ended)
    ended_s = time.monotonic() - told_s
    closed = [o for o in outcomes if o.why in NOT_ACCEPTED and o.sent_s > told_s]
    met = [outcome for outcome in outcomes if outcome not in closed]
    return {
        **tally(met),
        "under_way": tally(o for o in met if o.sent_s < told_s < o.done_s),
        "not_accepted": len(closed),
        "exit_code": code,
        "ended_after_s": ended_s,
        "tracebacks": sum("Traceback" in line for line in server.lines),
    }
