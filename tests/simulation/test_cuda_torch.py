"""A CUDA torch that is installed already: its own headers, and none of the real libraries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hybridlab.errors import UnavailableError
from hybridlab.simulation import STATE_VARIABLE
from hybridlab.simulation import cuda_torch as module
from hybridlab.simulation.build import CSRC, compiler
from hybridlab.simulation.cuda_torch import CudaTorch, apart, headers


def refuse(requirements: list[str], wheels: Path) -> None:
    raise UnavailableError("there is no network")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No index, no toolkit, nothing fetched before."""
    monkeypatch.setattr(module, "_download", refuse)
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))


def written(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "cuda.h").write_text(f"#define CUDA_VERSION {number}\n")
    (folder / "cuda_runtime_api.h").touch()
    return folder


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("place", "cuda", "number"),
    [
        ("site/nvidia/cu13/include", "13.9", 13090),
        ("site/nvidia/cuda_runtime/include", "12.0", 12000),
        ("toolkit/include", "12.0", 12000),
    ],
)
def test_headers_of_the_packages_or_the_toolkit_need_no_network(
    place: str, cuda: str, number: int, tmp_path: Path
) -> None:
    folder = written(tmp_path / place, number)
    assert headers(cuda, tmp_path / "site") == folder


@pytest.mark.usefixtures("offline")
def test_headers_of_another_cuda_are_not_taken(tmp_path: Path) -> None:
    written(tmp_path / "site/nvidia/cuda_runtime/include", 12080)
    with pytest.raises(UnavailableError, match="no network"):
        headers("12.0", tmp_path / "site")


def test_the_sources_compile_with_the_headers_of_the_runtimes_package_alone(
    include: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "include"
    shutil.copytree(include, alone, ignore=shutil.ignore_patterns("crt"))
    version = ["-DCUDNN_MAJOR=9", "-DCUDNN_MINOR=1", "-DCUDNN_PATCH=0"]
    version += ["-DNCCL_MAJOR=2", "-DNCCL_MINOR=1", "-DNCCL_PATCH=0"]
    command = [*compiler(), "-std=c11", "-D_GNU_SOURCE", "-w", "-fsyntax-only", *version]
    sources = sorted(map(str, CSRC.glob("*.c")))
    done = subprocess.run(
        [*command, f"-I{alone}", f"-I{CSRC}", *sources], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def installed(cuda: CudaTorch, site: Path) -> Path:
    """This torch as a package index leaves it: NVIDIA's libraries beside it (empty ones here)."""
    libraries = site / "torch" / "lib"
    libraries.mkdir(parents=True)
    for path in cuda.path.glob("torch-*.dist-info"):
        (site / path.name).symlink_to(path)
    for path in (cuda.path / "torch").iterdir():
        if path.name != "lib":
            (site / "torch" / path.name).symlink_to(path)
    for path in cuda.lib.iterdir():
        (libraries / path.name).symlink_to(path)
    major = cuda.cuda.partition(".")[0]
    real = site / "nvidia" / f"cu{major}" / "lib" / f"libcudart.so.{major}"
    real.parent.mkdir(parents=True)
    subprocess.run(
        [*compiler(), "-shared", f"-Wl,-soname,{real.name}", "-o", str(real), "-xc", "/dev/null"],
        check=True,
    )
    return site


def imported(path: Path, lib: Path) -> subprocess.CompletedProcess[str]:
    """Which torch is imported from this folder with the stand-ins at hand."""
    code = "import torch; print(torch.__file__, torch.version.cuda)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_LIBRARY_PATH": str(lib), "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_stand_ins_are_found_before_libraries_that_are_installed_beside_torch(
    cuda: CudaTorch, lib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = installed(cuda, tmp_path / "site")
    assert imported(site, lib).returncode, "torch takes what is beside it"
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    folder = apart(site)
    done = imported(folder, lib)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / "torch/__init__.py"), cuda.cuda]


def test_links_to_a_torch_are_made_once_and_follow_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    site = tmp_path / "site"
    (site / "torch" / "lib").mkdir(parents=True)
    (site / "torch" / "version.py").touch()
    folder = apart(site)
    made = folder.stat().st_ino
    assert apart(site).stat().st_ino == made
    (site / "torch" / "lib" / "libnew.so").touch()
    assert apart(site) == folder and (folder / "torch" / "lib" / "libnew.so").exists()
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [folder.name]


@pytest.mark.usefixtures("lib")
def test_a_command_that_begins_again_has_the_card_and_takes_it_along_when_it_ends() -> None:
    code = (
        "import os\n"
        "from hybridlab.simulation.environment import begin_again\n"
        "print(os.getpid(), flush=True)\n"
        "begin_again('simulated:l4')\n"
        "import torch\n"
        "print(torch.cuda.get_device_name(), os.environ['HYBRIDLAB_SIMULATED_CARD'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != STATE_VARIABLE}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, again, told = done.stdout.splitlines()
    *name, state = told.split()
    assert first == again and name == ["NVIDIA", "L4"]
    assert not Path(state).parent.exists()
