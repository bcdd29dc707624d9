"""Which card is `cuda:N`: by NVML where that can tell, else by CUDA's own driver."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hybridlab.devices import driver, visible
from hybridlab.devices.visible import Gpu, chosen_gpus
from hybridlab.errors import UnavailableError
from tests.fake_nvml import FakeNvml

T4 = Gpu(
    uuid="GPU-aaaa",
    name="Tesla T4",
    capacity_bytes=15_600,
    capability=(7, 5),
    cuda_version=13_000,
)
SECOND = replace(T4, uuid="GPU-abbb")
L4 = replace(T4, uuid="GPU-cccc", name="NVIDIA L4", capability=(8, 9))


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (None, (T4, SECOND)),
        ("", ()),
        ("1", (SECOND,)),
        ("1,0", (SECOND, T4)),
        (" 1 , 0 ", (SECOND, T4)),
        ("0,2,1", (T4,)),  # there is no third card: what comes after it is not shown
        ("-1", ()),
        ("0,-1,1", (T4,)),
        ("0,0", ()),
        ("GPU-abbb", (SECOND,)),
        ("GPU-ab,GPU-aa", (SECOND, T4)),
        ("GPU-a", ()),  # both begin so
        ("none", ()),
    ],
)
def test_the_variable_chooses_as_cuda_does(wanted: str | None, shown: tuple[Gpu, ...]) -> None:
    assert chosen_gpus([T4, SECOND], wanted) == shown


def test_cuda_alone_knows_the_order_of_unlike_cards_and_the_parts_of_divided_ones() -> None:
    assert chosen_gpus([T4, L4], None) is None
    assert chosen_gpus([T4, L4], "1") is None
    assert chosen_gpus([T4, L4], "1", "PCI_BUS_ID") == (L4,)
    assert chosen_gpus([T4, L4], "GPU-cccc") == (L4,)
    assert chosen_gpus([replace(T4, divided=True)], None) is None
    assert chosen_gpus([T4], "MIG-1234") is None


def test_nvml_knows_the_visible_ones(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.uuids, nvml.names = ["GPU-aaaa", "GPU-abbb"], ["Tesla T4", "Tesla T4"]
    assert visible.visible_gpus() == (T4, SECOND)
    monkeypatch.setenv(visible.VISIBLE_VARIABLE, "1")
    assert visible.visible_gpus() == (SECOND,)


def test_the_driver_is_asked_where_nvml_cannot_tell_and_both_reasons_are_said(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [{**vars(T4), "uuid": "MIG-aaaa", "capability": [8, 0]}]
    monkeypatch.setattr(visible, "ask_driver", lambda: told)
    nvml.divided = True
    (instance,) = visible.visible_gpus()
    assert (instance.uuid, instance.capability) == ("MIG-aaaa", (8, 0))
    visible._visible.cache_clear()
    nvml.present = False
    assert visible.visible_gpus() == (instance,)
    visible._visible.cache_clear()
    asked = []

    def refuse() -> None:
        asked.append(1)
        raise UnavailableError("no CUDA: no libcuda.so.1")

    monkeypatch.setattr(visible, "ask_driver", refuse)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"Driver Not Loaded; no CUDA: no libcuda"):
            visible.visible_gpus()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("built_for", "flags", "gpu", "lack"),
    [
        (None, "", T4, "is built without CUDA"),
        ("13.0", "sm_75 sm_80", T4, ""),
        ("13.0", "sm_75 sm_80", replace(T4, cuda_version=12_040), "supports CUDA 12.4, torch"),
        ("13.0", "sm_75 sm_80", replace(T4, capability=(6, 0)), "compute capability 6.0"),
        ("13.0", "sm_75 sm_80", L4, ""),  # 8.9 runs what is made for 8.0
        ("13.0", "sm_75 sm_80", replace(T4, capability=(9, 0)), "compute capability 9.0"),
        ("13.0", "sm_75 compute_80", replace(T4, capability=(9, 0)), ""),
    ],
)
def test_what_torch_cannot_use_is_a_lack_in_words(
    monkeypatch: pytest.MonkeyPatch, built_for: str | None, flags: str, gpu: Gpu, lack: str
) -> None:
    import torch

    monkeypatch.setattr(visible, "cuda_version", lambda folder: built_for)
    monkeypatch.setattr(torch._C, "_cuda_getArchFlags", lambda: flags, raising=False)
    monkeypatch.setattr(visible, "visible_gpus", lambda: (gpu,))
    said = visible.cuda_lack()
    assert lack in said and bool(said) == bool(lack)


def test_a_machine_without_a_card_is_known_without_torch() -> None:
    """A notebook's kernel and the command line resolve their device so."""
    code = (
        "import sys; from hybridlab.devices import resolve_device as found; found('auto').title()"
    )
    hidden = {**os.environ, visible.VISIBLE_VARIABLE: ""}
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], env=hidden, check=False
    )
    assert ended.returncode == 0


def test_no_visible_card_and_a_fork_after_cuda_are_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(visible, "cuda_version", lambda folder: "13.0")
    monkeypatch.setattr(visible, "visible_gpus", tuple)
    monkeypatch.setenv(visible.VISIBLE_VARIABLE, "")
    assert "CUDA_VISIBLE_DEVICES=''" in visible.cuda_lack()
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert "forked from" in visible.cuda_lack()


def fake_driver(*, code: int = 0) -> Any:
    """CUDA's driver with one instance of a divided card; `code` is its first call's answer."""

    def sets(*values: int, code: int = 0) -> Callable[..., int]:
        def call(*targets: Any) -> int:
            for target, value in zip(targets, values, strict=False):
                target._obj.value = value
            return code

        return call

    def name(title: Any, *_: Any) -> int:
        title.value = b"NVIDIA A100-SXM4-40GB MIG 1g.5gb"
        return 0

    def own_id(target: Any, handle: Any) -> int:
        ctypes.memmove(target._obj, bytes(range(16)), 16)
        return 0

    return SimpleNamespace(
        cuDriverGetVersion=sets(12_040, code=code),
        cuDeviceGetCount=sets(1),
        cuDeviceGet=sets(0),
        cuDeviceGetName=name,
        cuDeviceGetUuid_v2=own_id,
        cuDeviceTotalMem_v2=sets(5_000_000_000),
        cuDeviceGetAttribute=lambda value, number, _: sets({75: 8, 76: 0}[number])(value),
        cuDevicePrimaryCtxRetain=sets(0x1000),
        cuCtxSetCurrent=lambda context: 0 if context.value == 0x1000 else 1,
        cuMemGetInfo_v2=sets(4_800_000_000, 5_000_000_000),
    )


def test_the_drivers_words() -> None:
    (told,) = driver.read_devices(fake_driver())
    gpu = Gpu(**{**told, "capability": tuple(told["capability"])})
    assert gpu == Gpu(
        uuid="MIG-00010203-0405-0607-0809-0a0b0c0d0e0f",
        name="NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        capacity_bytes=5_000_000_000,
        capability=(8, 0),
        cuda_version=12_040,
    )
    assert driver.read_free_bytes(fake_driver(), 0) == 4_800_000_000
    with pytest.raises(UnavailableError, match="cuDriverGetVersion answers with error 3"):
        driver.read_devices(fake_driver(code=3))


def test_no_driver_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.CompletedProcess([], 1, "", "x\nlibcuda.so.1: cannot open\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(UnavailableError, match=r"no CUDA: libcuda.so.1: cannot open"):
        driver.ask_driver()


@pytest.mark.gpu
def test_cuda_and_nvml_speak_of_the_same_card() -> None:
    import torch

    gpus = visible.visible_gpus()
    assert len(gpus) == torch.cuda.device_count()
    for index, gpu in enumerate(gpus):
        properties = torch.cuda.get_device_properties(index)
        assert gpu.uuid.partition("-")[2] == str(properties.uuid)
        assert gpu.name == properties.name
        assert gpu.capability == (properties.major, properties.minor)
        assert gpu.capacity_bytes == pytest.approx(properties.total_memory, rel=0.01)


@pytest.mark.gpu
def test_a_hidden_card_is_not_there() -> None:
    code = "from hybridlab.devices import resolve_device as r; print(r('auto').name)"
    for shown, name in (("", "cpu"), ("0", "cuda:0")):
        environment = {**os.environ, visible.VISIBLE_VARIABLE: shown}
        told = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert told.stdout.strip() == name, told.stderr
