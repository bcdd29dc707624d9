"""Expandable segments: tried elsewhere before they are set, on a card they grow."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hybridlab.devices import CudaDevice, resolve_device
from hybridlab.errors import UnavailableError
from hybridlab.models.base import compute_values
from hybridlab.processes import fork_server, segments
from hybridlab.processes.segments import expand_segments
from hybridlab.simulation import STATE_VARIABLE
from tests.fake_nvml import FakeNvml


@pytest.mark.parametrize(
    ("code", "said", "why"),
    [
        (0, "", ""),
        (70, "x\nRuntimeError: nvmlDeviceGetGpuFabricInfoV: Not Supported\n", "FabricInfoV"),
        (None, "", "ended by SIGSEGV"),
    ],
)
def test_expandable_segments_are_tried_elsewhere_before_they_are_set(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, code: int | None, said: str, why: str
) -> None:
    class Server:
        def run(self, *_: object, timeout_s: float, log: Path) -> fork_server.ExitStatus:
            log.write_text(said)
            return fork_server.ExitStatus(code, signal.SIGSEGV if code is None else None, 1.0)

    settings: list[bool] = []
    monkeypatch.setattr(segments, "shared_server", Server)
    monkeypatch.setattr(CudaDevice, "expand_segments", lambda _: settings.append(True))
    if not why:
        expand_segments(CudaDevice(0))
        assert settings == [True]
        return
    with pytest.raises(UnavailableError, match=f"do not work on Tesla T4.*{why}"):
        expand_segments(CudaDevice(0))
    assert not settings


def fill_a_growing_segment(path: str) -> None:
    import warnings

    import torch

    warnings.simplefilter("error")  # a deprecated way of setting it is one
    compute_values()
    card = resolve_device("cuda")
    expand_segments(card)
    blocks = [torch.ones(30 * 2**20, dtype=torch.uint8, device=card.name) for _ in range(3)]
    growing = [segment["is_expandable"] for segment in torch.cuda.memory_snapshot()]
    Path(path).write_text(f"{sum(int(block[-1]) for block in blocks)} {growing}")


@pytest.mark.gpu
def test_segments_of_a_real_card_grow(case_server: fork_server.CaseServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = case_server.run(fill_a_growing_segment, str(tmp_path / "found"), log=log)
    lacking = not ended.ok and "expandable segments do not work" in log.read_text()
    if lacking and STATE_VARIABLE not in os.environ:
        pytest.skip(log.read_text().strip().splitlines()[-1])
    assert ended.ok, log.read_text()
    assert (tmp_path / "found").read_text() == "3 [True]"
