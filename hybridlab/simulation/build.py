"""Builds the stand-ins for CUDA's libraries that a CUDA torch asks for.

Which libraries, symbols and versions those are is read from torch's own files, so that another
version of torch needs no change here. What is written by hand in `csrc` answers as a card does;
every other symbol becomes a stub that says so in its library's terms.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hybridlab.errors import UnavailableError

CSRC = Path(__file__).parent / "csrc"
#: The library that the others share; see card.h.
CORE = "libhybridlab_card.so"
CORE_SOURCES = ("state.c", "visible.c", "blocks.c", "work.c")
#: What is written by hand for a library, whatever number its name ends in.
SOURCES = {
    "libcudart": ("errors.c", "memory.c", "device.c", "streams.c", "kernels.c"),
    "libcuda": ("driver.c",),
    "libnvidia-ml": ("nvml.c",),
}
MATHS_SOURCES = ("maths.c",)
#: What comes with NVIDIA's driver is loaded by name, not asked for in an ELF header.
DRIVER_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")
#: How a symbol that is not written by hand answers; maths libraries succeed and compute nothing.
STUB_ANSWERS = {
    "libcudart": "unsupported()",
    "libcuda": "801",  # CUDA_ERROR_NOT_SUPPORTED
    "libnvidia-ml": "3",  # NVML_ERROR_NOT_SUPPORTED
    "libnvrtc": "11",  # NVRTC_ERROR_INTERNAL_ERROR
    "libnccl": "3",  # ncclInternalError
    "libcufile": "5001",  # CU_FILE_DRIVER_NOT_INITIALIZED
    "libnvshmem_host": "1",
}
#: Not so for a size: what is not modelled must not look like one. Each library's "not supported".
STUB_SIZES = {"libcudnn": "3000", "libcusparse": "10", "libcusolver": "9"}
_NVIDIA = re.compile(r"lib(cu|nv|nccl)")
_DRIVER_CALL = re.compile(r"cu[A-Z]")
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym
_BUILT = "fingerprint"

#: Symbols that a library must export, each with the version it is asked for under, if any.
Wanted = dict[str, dict[str, str | None]]


#: The interpreter that runs the programs; without it the first `python3`.
PYTHON_VARIABLE = "HYBRIDLAB_SIMULATION_PYTHON"


def build(torch_lib: Path, include: Path, out: Path) -> None:
    """Makes `out` the folder of stand-ins for the torch whose libraries lie in `torch_lib`; its
    `bin` holds the programs that come with the driver.

    `include` holds CUDA's headers of torch's CUDA version. Nothing is done where `out` was built
    from the same sources, torch and compiler. `UnavailableError` without a C compiler.
    """
    command = compiler()
    fingerprint = _fingerprint(torch_lib, include, command)
    with locked(out):
        built = out / _BUILT
        if built.is_file() and built.read_text() == fingerprint:
            return
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            fresh = Path(folder) / "fresh"
            fresh.mkdir()
            options = [*_library_versions(torch_lib), f"-I{include}", f"-I{CSRC}"]
            _compile_all([*command, *options], wanted_symbols(torch_lib), fresh)
            _write_programs(fresh / "bin")
            (fresh / _BUILT).write_text(fingerprint)
            if out.exists():
                out.rename(Path(folder) / "old")
            fresh.rename(out)


def _write_programs(folder: Path) -> None:
    """What comes with NVIDIA's driver beside its libraries, for PATH."""
    folder.mkdir()
    program = folder / "nvidia-cuda-mps-control"
    # a copy: these libraries outlive the checkout and the environment that built them
    shutil.copy(Path(__file__).with_name("mps.py"), folder)
    python = f"${{{PYTHON_VARIABLE}:-python3}}"
    program.write_text(f'#!/bin/sh\nexec "{python}" "${{0%/*}}/mps.py" "$@"\n')
    program.chmod(0o755)


def compiler() -> list[str]:
    """The system's C compiler, or the one that the package ziglang brings."""
    if found := shutil.which("cc"):
        return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise UnavailableError(
        "the simulated card needs a C compiler to be built: install one as cc, or run "
        "pip install 'hybridlab[sim]'"
    )


def wanted_symbols(torch_lib: Path) -> Wanted:
    """What the libraries of a CUDA torch expect from NVIDIA's, by soname."""
    wanted: Wanted = {name: {} for name in DRIVER_LIBRARIES}
    unversioned: set[str] = set()
    for path in sorted(torch_lib.glob("lib*.so")):
        needed, symbols = _undefined(path)
        for name in needed:
            wanted.setdefault(name, {})
        for symbol, (library, version) in symbols.items():
            if library is None:
                unversioned.add(symbol)
            elif library in wanted:
                wanted[library][symbol] = version
    if not any(name.startswith("libcudart.") for name in wanted):
        raise UnavailableError(f"{torch_lib} holds no torch that was built for CUDA")
    _assign(unversioned, wanted)
    return wanted


def _assign(symbols: set[str], wanted: Wanted) -> None:
    """A symbol without a version belongs to the library that it is named after."""
    prefixes = {_stem(name).removeprefix("lib").removesuffix("_host"): name for name in wanted}
    for symbol in symbols:
        own = [prefix for prefix in prefixes if symbol.lower().startswith(prefix.lower())]
        if own:
            wanted[prefixes[max(own, key=len)]].setdefault(symbol, None)
        elif _DRIVER_CALL.match(symbol):
            wanted["libcuda.so.1"].setdefault(symbol, None)


def _stem(soname: str) -> str:
    return soname.partition(".so")[0]


def _undefined(path: Path) -> tuple[list[str], dict[str, tuple[str | None, str | None]]]:
    """NVIDIA's libraries that a file needs, and its undefined symbols with library and version."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        elf = ELFFile(file)
        dynamic = elf.get_section_by_name(".dynamic")
        needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
        needed = [name for name in needed if _NVIDIA.match(name)]
        if not needed:
            return [], {}
        table = elf.get_section_by_name(".dynsym").data()
        names = elf.get_section_by_name(".dynstr").data()
        numbers = elf.get_section_by_name(".gnu.version").data()
        versions = {
            auxiliary["vna_other"]: (need.name, auxiliary.name)
            for need, auxiliaries in elf.get_section_by_name(".gnu.version_r").iter_versions()
            for auxiliary in auxiliaries
        }
    symbols: dict[str, tuple[str | None, str | None]] = {}
    for entry, (number,) in zip(
        _SYMBOL.iter_unpack(table), struct.iter_unpack("<H", numbers), strict=True
    ):
        at, section = entry[0], entry[3]
        if at and section == 0:
            name = names[at : names.index(b"\0", at)].decode()
            symbols[name] = versions.get(number & 0x7FFF, (None, None))
    return needed, symbols


def _library_versions(torch_lib: Path) -> list[str]:
    """The versions of cuDNN and NCCL that this torch was built for, as its package asks for them:
    torch compares them with what the libraries say."""
    text = "".join(
        path.read_text() for path in torch_lib.parents[1].glob("torch-*.dist-info/METADATA")
    )
    options = []
    for library in ("cudnn", "nccl"):
        found = re.search(
            rf"^Requires-Dist: nvidia-{library}-cu\d+==(\d+)\.(\d+)\.(\d+)", text, re.M
        )
        if found is None:
            raise UnavailableError(f"{torch_lib}: its torch does not say which {library} it needs")
        for part, number in zip(("MAJOR", "MINOR", "PATCH"), found.groups(), strict=True):
            options.append(f"-D{library.upper()}_{part}={number}")
    return options


def _compile_all(command: list[str], wanted: Wanted, out: Path) -> None:
    base = [*command, "-std=c11", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC", "-w"]
    base += ["-fvisibility=hidden", "-fno-sanitize=undefined"]
    sources = [str(CSRC / name) for name in CORE_SOURCES]
    _run([*base, f"-Wl,-soname,{CORE}", "-o", str(out / CORE), *sources, "-lpthread"])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(_compile_library, base, soname, symbols, out)
            for soname, symbols in sorted(wanted.items())
        ]
        for job in jobs:
            job.result()


def _compile_library(
    base: list[str], soname: str, symbols: Mapping[str, str | None], out: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stubs, script = Path(folder) / "stubs.c", Path(folder) / "versions.map"
        stubs.write_text(_stubs(soname, symbols))
        script.write_text(_version_script(soname, symbols))
        sources = [str(CSRC / name) for name in SOURCES.get(_stem(soname), MATHS_SOURCES)]
        names = [f"-Wl,-soname,{soname}", f"-Wl,--version-script={script}", "-Wl,-rpath,$ORIGIN"]
        link = [f"-L{out}", "-lhybridlab_card", "-ldl", "-lpthread"]
        _run([*base, *names, "-o", str(out / soname), str(stubs), *sources, *link])


def _stubs(soname: str, symbols: Mapping[str, str | None]) -> str:
    """Weak functions: what is written by hand takes their place."""
    weak = '__attribute__((weak, visibility("default")))'
    answer = STUB_ANSWERS.get(_stem(soname), "0")
    no_size = STUB_SIZES.get(_stem(soname), answer)
    text = re.compile(r"ErrorString|LastError")
    lines = [f"{weak} int unsupported(void) {{ return 0; }}" if "(" in answer else ""]
    for name in sorted(symbols):
        if text.search(name):
            lines.append(f'{weak} const char *{name}(void) {{ return "not simulated"; }}')
        else:
            given = no_size if "Size" in name else answer
            lines.append(f"{weak} int {name}(void) {{ return {given}; }}")
    return "\n".join(lines) + "\n"


def _version_script(soname: str, symbols: Mapping[str, str | None]) -> str:
    """Each symbol under the version it is asked for; of CUDA's runtime and driver, whose functions
    are also looked up by name, all that is written by hand."""
    first = next((version for version in symbols.values() if version), "")
    nodes: dict[str, list[str]] = {first: []}
    for name, version in sorted(symbols.items()):
        nodes.setdefault(version or first, []).append(name)
    if _stem(soname) in SOURCES:
        nodes[first].append("*")
    ends = {first: "" if _stem(soname) in SOURCES else "local: *; "}
    return "".join(
        f"{node} {{ {'global: ' if names else ''}{''.join(f'{name}; ' for name in names)}"
        f"{ends.get(node, '')}}};\n"
        for node, names in nodes.items()
    )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        said = next((line for line in lines if "error" in line), lines[-1] if lines else "")
        raise UnavailableError(f"the simulated card could not be built: {said}")


def _fingerprint(torch_lib: Path, include: Path, command: list[str]) -> str:
    digest = hashlib.sha256()
    for path in (Path(__file__), Path(__file__).with_name("mps.py"), *sorted(CSRC.rglob("*.[ch]"))):
        digest.update(path.read_bytes())
    for path in sorted(torch_lib.glob("lib*.so")):
        about = path.stat()
        digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}".encode())
    said = subprocess.run([*command, "--version"], capture_output=True, check=False).stdout
    digest.update(f"{include} {command}".encode() + said)
    return digest.hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Of several processes one makes this folder, the others wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
