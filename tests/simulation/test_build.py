from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hybridlab.errors import UnavailableError
from hybridlab.simulation import build as builder
from hybridlab.simulation.build import build, compiler, wanted_symbols
from tests.simulation.conftest import Bench


def test_the_symbols_are_those_that_torch_asks_for(site: Path) -> None:
    wanted = wanted_symbols(site / "torch" / "lib")
    (runtime,) = [name for name in wanted if name.startswith("libcudart.so.")]
    assert wanted[runtime]["cudaMalloc"] == runtime  # a version is named after its library
    (nccl,) = [name for name in wanted if name.startswith("libnccl.so.")]
    assert wanted[nccl]["ncclGetVersion"] is None
    assert {name.partition(".")[0] for name in wanted} >= {"libcublas", "libcudnn", "libnvrtc"}
    assert "cuLaunchKernel" in wanted["libcuda.so.1"]
    assert not any(name.startswith("cuda") for name in wanted["libcuda.so.1"])


def test_a_build_is_made_once_whoever_asks(site: Path, include: Path, lib: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in lib.iterdir()}
    threads = [
        threading.Thread(target=build, args=(site / "torch" / "lib", include, lib))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name: path.stat().st_mtime_ns for path in lib.iterdir()} == before
    assert not list(lib.parent.glob(f".{lib.name}-*"))  # nothing half made is left


def test_every_library_loads_with_all_that_torch_asks_for(lib: Path, site: Path) -> None:
    for soname, symbols in wanted_symbols(site / "torch" / "lib").items():
        code = (
            f"import ctypes, sys\nlib = ctypes.CDLL({soname!r}, mode=2)\n"
            f"missing = [name for name in {sorted(symbols)!r} if not hasattr(lib, name)]\n"
            "sys.exit(str(missing) if missing else 0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"LD_LIBRARY_PATH": str(lib)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{soname}: {done.stderr}"


def test_without_a_compiler_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(builder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"^the simulated card needs a C compiler.*$"):
        compiler()


def test_zig_takes_the_place_of_the_systems_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(builder.importlib.util, "find_spec", lambda name: object())
    assert compiler() == [sys.executable, "-m", "ziglang", "cc"]


def test_a_torch_without_cuda_and_a_failing_compiler_are_told(
    site: Path, include: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    with pytest.raises(UnavailableError, match="holds no torch that was built for CUDA"):
        wanted_symbols(tmp_path / "lib")
    with pytest.raises(UnavailableError, match=r"could not be built: .*error.*cuda_runtime_api"):
        build(site / "torch" / "lib", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_torch_finds_the_library_that_compiles_kernels(bench: Bench) -> None:
    said = bench.run(
        """
        import torch
        library = c.CDLL(str(Path(torch.__file__).parent / "lib" / "libcaffe2_nvrtc.so"))
        before = torch._C._cuda_hasPrimaryContext(0)
        torch.zeros(1, device="cuda")
        say(before=before, after=torch._C._cuda_hasPrimaryContext(0), loaded=library._handle != 0)
        """
    )
    assert said == {"before": False, "after": True, "loaded": True}


def test_a_program_with_a_runtime_of_its_own_fails_in_words(bench: Bench) -> None:
    pytest.importorskip("ctranslate2")
    said = bench.run(
        """
        import ctranslate2
        try: ctranslate2.get_supported_compute_types("cuda")
        except RuntimeError as error: text = str(error)
        say(devices=ctranslate2.get_cuda_device_count(), text=text)
        """
    )
    assert said["devices"] == 0
    assert said["text"].startswith("CUDA failed with error")
