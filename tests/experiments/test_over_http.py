"""Arms whose tenants are servers of their own, asked over HTTP on loopback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hybridlab.device import CpuDevice, linux
from hybridlab.device.trees import TreeMember
from hybridlab.errors import UnavailableError
from hybridlab.experiments import race
from hybridlab.experiments.lab import Lab
from hybridlab.params import ParallelParams
from hybridlab.summary import containers_table
from hybridlab.tenants import TenantSpec
from hybridlab.tenants.over_http import Server, command, wav
from tests.workers_at_work import alive, wait_until

WHISPER = TenantSpec(model="pocket-s", backend="openai-whisper", weights="pocket", dtype="float32")


@pytest.mark.slow
def test_servers_say_what_the_tenants_say_alone_and_their_cost_is_measured(tmp_path: Path) -> None:
    """Two servers in a race (a closed loop), one server under arrivals (an open one)."""
    values = {
        "output_dir": str(tmp_path / "run"),
        "headless": True,
        "device": "cpu",
        "trials": 2,
        "max_new_tokens": 12,
        "most_foreign_cpu": 1.0,
    }
    lab = Lab.open(ParallelParams.from_mapping(values))
    apart, together = (
        race.Arm("parallel", name) for name in ("separate-containers", "single-container")
    )
    *_, two = rows = race.run(lab, [apart], rounds=1)
    options = {"rate_rps": 4.0, "load": 0.3, "seed": 0}
    one = lab.runner.run(race.arm_case(lab, "arrivals", together, work="arrive", options=options))
    rows.append(one)
    assert [row["status"] for row in rows] == ["ok"] * 3, [row["reason"] for row in rows]
    assert (one["servers"], two["servers"]) == (1, 2)
    assert 0 < one["server_overhead_bytes"] < two["server_overhead_bytes"]
    assert one["steady_bytes"] < two["steady_bytes"]
    trials = lab.table("trials")
    raced = trials[(trials["experiment"] == "race") & ~trials["first"].astype(bool)]
    assert raced["parity"].astype(bool).all()
    served = trials[(trials["strategy"] == "parallel") & ~trials["first"].astype(bool)]
    assert len(served) == 4
    assert served["http_overhead_s"].between(0.0001, served["latency_s"]).all()
    (row,) = containers_table(trials, lab.table("cases")).to_dict("records")
    assert (row["strategy"], row["servers"]) == ("parallel / separate-containers", 2)
    ledgers = lab.table("ledgers")
    steady = ledgers[(ledgers["case_id"] == two["case_id"]) & (ledgers["moment"] == "steady")]
    inside = steady[steady["inside"].astype(bool)].groupby("owner")["bytes"].sum()
    assert inside.sum() == two["steady_bytes"]
    assert abs(inside["unexplained"]) < 0.02 * two["steady_bytes"]


def test_a_server_that_refuses_says_why() -> None:
    server = Server("whisper", ["--only=whisper", "--whisper=huge"], CpuDevice())
    with pytest.raises(UnavailableError, match=r"did not start: .*'huge'"):
        server.enter("whisper")
    server.stop()


def test_what_a_server_cannot_be_told_is_refused() -> None:
    spec = TenantSpec(
        model="pocket",
        backend="transformers",
        weights="pocket",
        dtype="float32",
        attention="math",
    )
    with pytest.raises(UnavailableError, match="attention auto"):
        command(analyst=spec, device="cpu")
    assert "--only=whisper" in command(transcriber=WHISPER, device="cpu")


def test_sound_goes_over_as_it_is() -> None:
    import io

    import soundfile

    samples = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    read, rate = soundfile.read(io.BytesIO(wav(samples)), dtype="float32")
    assert rate == 16_000
    assert np.array_equal(read, samples)


def test_a_tree_counts_what_its_processes_hold_and_nothing_once_it_is_gone() -> None:
    """A process that starts another, which takes 100 MB."""
    child = "import time; held = bytearray(b'x') * 10**8; print(1, flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        member = TreeMember("tree", process.pid)
        assert linux.family(process.pid) == member.pids
        assert len(member.pids) == 2
        assert 100e6 < member.used_bytes() < 150e6
        assert member.peak_bytes() >= member.used_bytes()
        assert member.cpu_s > 0
        first, second = member.pids
        member.leave()
        assert member.used_bytes() == member.peak_bytes() == 0
    finally:
        for pid in reversed(linux.family(process.pid)):
            subprocess.run(["kill", str(pid)], check=False)
        process.wait()
    assert first == process.pid
    assert wait_until(lambda: not alive(second))
