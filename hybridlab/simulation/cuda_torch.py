"""CUDA's own build of torch: the environment's, or one fetched into the user's cache.

On a simulated card torch needs none of the CUDA packages that its wheel asks for, so that 530 MB
are fetched and not 3 GB. The environment's own torch stays as it is; where that is a CUDA build it
is used with whatever headers of its CUDA lie beside it, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from hybridlab.errors import UnavailableError
from hybridlab.simulation.build import locked
from hybridlab.units import GB, format_bytes

#: torch 2.13's wheel (0.53 GB) and what it holds (1.2 GB) lie on the disk side by side for a while.
NEEDED_DISK_BYTES = 2 * GB
#: Its size on PyPI, said before it is fetched.
FETCHED_BYTES = 530_000_000
PLATFORM = f"cp{sys.version_info.major}{sys.version_info.minor}-{os.uname().machine}"


@dataclass(frozen=True)
class CudaTorch:
    """Where CUDA's torch lies: in `path`, which goes in front of `sys.path`. `include` holds the
    headers of its CUDA version."""

    version: str  # '2.13.0'
    cuda: str  # '13.0'
    path: Path
    include: Path

    @property
    def lib(self) -> Path:
        return self.path / "torch" / "lib"


def _say(line: str) -> None:
    """What takes minutes is said first, where it is no part of a command's output."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - for the reader of a terminal


def cache_folder() -> Path:
    """Where fetched and built files are kept: the user's cache."""
    return platformdirs.user_cache_path("hybridlab") / "simulation"


def cuda_torch() -> CudaTorch:
    """CUDA's torch of the environment's version, fetched at first use; what is fetched and where to
    is said on stderr in one line. `UnavailableError` where it cannot be had."""
    try:
        wanted = version("torch").partition("+")[0]
    except PackageNotFoundError:
        raise UnavailableError("torch is not installed: pip install torch") from None
    site = Path(str(distribution("torch").locate_file("")))
    cuda = cuda_version(site)
    if cuda is not None:
        folder = site if site.is_relative_to(cache_folder()) else apart(site)
        return CudaTorch(wanted, cuda, folder, headers(cuda, site))
    folder = cache_folder() / f"torch-{wanted}-{PLATFORM}"
    with locked(folder):
        if not folder.is_dir():
            _fetch_torch(wanted, folder)
    cuda = cuda_version(folder)
    assert cuda is not None  # checked before the folder got its name
    return CudaTorch(wanted, cuda, folder, headers(cuda, site))


def cuda_version(folder: Path) -> str | None:
    """The CUDA version that the torch in this folder was built for ('13.0'), None for a CPU build;
    torch itself is not imported."""
    source = (folder / "torch" / "version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda(?:: [^=]+)? = '([\d.]+)'", source, re.MULTILINE)
    return found[1] if found else None


def _fetch_torch(wanted: str, folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_DISK_BYTES:
        raise UnavailableError(
            f"only {format_bytes(free)} are free at {folder.parent}; CUDA's torch needs "
            f"{format_bytes(NEEDED_DISK_BYTES)} there: free some space or set XDG_CACHE_HOME"
        )
    _say(
        f"fetching CUDA's build of torch {wanted} once (about {FETCHED_BYTES / 1e6:.0f} MB) to "
        f"{folder}"
    )
    with _unpacked([f"torch=={wanted}"], folder.parent) as found:
        if cuda_version(found) is None:
            raise UnavailableError(
                f"the package index has no CUDA build of torch {wanted} for this Python; a "
                "simulated card needs one"
            )
        found.rename(folder)


def apart(site: Path) -> Path:
    """A folder with links to the torch of `site` and to nothing else of it.

    torch's libraries look for NVIDIA's in `../../nvidia` beside their own folder before they look
    where the stand-ins are (an RPATH), so that they must be opened where no such folder is.
    """
    digest = hashlib.sha256(str(site).encode()).hexdigest()[:12]
    folder = cache_folder() / f"torch-apart-{digest}"
    with locked(folder), TemporaryDirectory(dir=folder.parent, prefix="linking-") as temporary:
        fresh = Path(temporary) / "fresh"
        libraries = fresh / "torch" / "lib"
        libraries.mkdir(parents=True)
        _link(site.glob("torch-*.dist-info"), fresh)
        own = (path for path in (site / "torch").iterdir() if path.name != "lib")
        _link(own, libraries.parent)
        _link((site / "torch" / "lib").iterdir(), libraries)
        if folder.is_dir():
            if _links(folder) == _links(fresh):
                return folder
            folder.rename(Path(temporary) / "old")
        fresh.rename(folder)
    return folder


def _link(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        (folder / path.name).symlink_to(path)


def _links(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_symlink())
    return {str(path.relative_to(folder)): str(path.readlink()) for path in found}


def headers(cuda: str, site: Path) -> Path:
    """Headers of this CUDA version: those of the packages in `site` or of an installed toolkit,
    else 2 MB of a package, fetched once."""
    for folder in _header_folders(cuda, site):
        if _headers_version(folder) == cuda:
            return folder
    return _fetched_headers(cuda)


def _header_folders(cuda: str, site: Path) -> list[Path]:
    major = cuda.partition(".")[0]
    toolkits = [os.environ.get("CUDA_HOME", ""), f"/usr/local/cuda-{cuda}", "/usr/local/cuda"]
    return [
        site / "nvidia" / f"cu{major}" / "include",  # from CUDA 13 on
        site / "nvidia" / "cuda_runtime" / "include",
        *(Path(toolkit) / "include" for toolkit in toolkits if toolkit),
    ]


def _headers_version(folder: Path) -> str | None:
    """The CUDA version of the headers in this folder ('13.0'); None where some are missing."""
    driver = folder / "cuda.h"
    if not (driver.is_file() and (folder / "cuda_runtime_api.h").is_file()):
        return None
    found = re.search(r"^#define CUDA_VERSION (\d+)", driver.read_text("utf-8"), re.MULTILINE)
    return f"{int(found[1]) // 1000}.{int(found[1]) % 1000 // 10}" if found else None


def _fetched_headers(cuda: str) -> Path:
    major = cuda.partition(".")[0]
    folder = cache_folder() / f"cuda-headers-{cuda}"
    name = "nvidia-cuda-runtime" if int(major) >= 13 else f"nvidia-cuda-runtime-cu{major}"
    with locked(folder):
        if not folder.is_dir():
            _say(f"fetching the headers of CUDA {cuda} once (about 2 MB) to {folder}")
            with _unpacked([f"{name}=={cuda}.*"], folder.parent) as found:
                found.rename(folder)
    header = next(folder.rglob("cuda_runtime_api.h"), None)
    if header is None:
        raise UnavailableError(f"{folder} has no cuda_runtime_api.h; delete it and try again")
    return header.parent


@contextmanager
def _unpacked(requirements: list[str], beside: Path) -> Iterator[Path]:
    """These packages' files, without what they depend on, in a folder to be renamed or dropped."""
    with TemporaryDirectory(dir=beside, prefix="fetching-") as temporary:
        wheels, files = Path(temporary) / "wheels", Path(temporary) / "files"
        wheels.mkdir()
        _download(requirements, wheels)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(files)
            wheel.unlink()
        yield files


def _download(requirements: list[str], wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(wheels)]
    # a folder of wheels that pip is told to prefer may hold the very CPU build that is here
    environment = {**os.environ, "PIP_FIND_LINKS": str(wheels)}
    ended = subprocess.run(
        [*command, *requirements], env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if "ERROR" in line] or ["no reason"]
        raise UnavailableError(
            f"{', '.join(requirements)} cannot be fetched ({lines[0].strip()}); a simulated card "
            "needs CUDA's build of torch once: try again while online, or install it"
        )
