"""From specs to checkpoints on this machine: what is lacking, whether it fits, and the download.

Apart from measuring: whoever runs cases calls `fetch` before the first of them, and loads read
folders alone. Where all is here already nothing is asked.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hybridlab.errors import WeightsError
from hybridlab.models import hub, openai_download
from hybridlab.models.base import ModelSpec
from hybridlab.models.checkpoint import (
    Checkpoint,
    cached,
    estimated_bytes,
    is_installed,
    is_openai,
    is_released,
    name_of,
    needed,
    openai_file,
    repository_folder,
    repository_of,
    sum_in,
)
from hybridlab.models.checkpoint_sums import SMALL_BYTES, differs, forget, forget_damaged
from hybridlab.models.fetch_progress import FetchProgress, Listener, RateMeter
from hybridlab.models.whole_files import is_whole
from hybridlab.units import format_decimal_bytes

#: Between two calls of a listener.
TICK_S = 0.25
#: How long a download may take to notice that nobody waits for it any more.
STOP_S = 2.0


@dataclass(frozen=True)
class Provision:
    """A checkpoint that specs need, and what of it has to be fetched."""

    spec: ModelSpec
    checkpoint: Checkpoint
    missing: Mapping[str, int]  #: bytes by name; {}: all is here
    listed: hub.Listing | None = None

    @property
    def missing_bytes(self) -> int:
        return sum(self.missing.values())


def fetch(
    specs: Iterable[ModelSpec], *, listener: Listener | None = None, verify: bool = False
) -> list[Checkpoint]:
    """Every checkpoint that these specs need, whole and on this machine.

    With `verify` each file is summed, and one that is damaged is fetched again. `listener` is
    called in this thread. `WeightsError` in one line for what cannot be had, before anything is
    fetched where that can be known.
    """
    specs = list(specs)
    if verify:
        for spec in specs:
            forget_damaged(spec)
    return complete(inspect(specs), listener=listener, verify=verify)


def complete(
    found: Collection[Provision], *, listener: Listener | None = None, verify: bool = False
) -> list[Checkpoint]:
    """As `fetch`, of what was inspected."""
    check_room(found)
    _download(found, listener)
    return [_arrived(one, verify=verify) for one in found]


def _arrived(one: Provision, *, verify: bool) -> Checkpoint:
    """This checkpoint as it is here now; `WeightsError` where it is not whole."""
    paths = [one.checkpoint.folder / name for name in one.checkpoint.files]
    damaged = [path for path in paths if _is_damaged(path, verify=verify)]
    if damaged:
        cure = (
            "this disk or what lies between it and the hub is damaged"
            if verify
            else "`hybridlab fetch PRESET --verify` fetches it again"
        )
        raise WeightsError(f"{damaged[0]} is damaged; {cure}")
    revision = "" if is_openai(one.spec) else one.checkpoint.commit
    checkpoint = cached(replace(one.spec, revision=revision))
    if checkpoint is None:
        raise WeightsError(
            f"{name_of(one.spec)} is not whole in {one.checkpoint.folder} after its download: "
            "another program has changed it; fetch it again"
        )
    return checkpoint


def _is_damaged(path: Path, *, verify: bool) -> bool:
    """By its own head and, where it is small or that was asked for, by its sum."""
    if not path.is_file() or not is_whole(path):
        return True
    return (verify or path.stat().st_size < SMALL_BYTES) and differs(path)


def inspect(specs: Iterable[ModelSpec]) -> list[Provision]:
    """What each released checkpoint among these specs lacks; the hub is asked about those that are
    not whole here."""
    return [_inspect(spec) for spec in _wanted(specs)]


def estimated_missing_bytes(specs: Iterable[ModelSpec]) -> int:
    """What of these specs' weights is not here, told without asking anybody: to within a hundredth,
    each that is begun counted whole."""
    return sum(estimated_bytes(spec) for spec in _wanted(specs) if cached(spec) is None)


def _wanted(specs: Iterable[ModelSpec]) -> list[ModelSpec]:
    """One spec for each released checkpoint. Backends that are not installed are left out:
    `check_source` refuses them."""
    wanted: dict[tuple[str, str], ModelSpec] = {}
    for spec in specs:
        if is_released(spec) and is_installed(spec):
            wanted.setdefault((repository_of(spec), spec.revision), spec)
    return list(wanted.values())


def _inspect(spec: ModelSpec) -> Provision:
    found = cached(spec)
    if found is not None:
        return Provision(spec, found, {})
    return _openai(spec) if is_openai(spec) else _listed(spec)


def _openai(spec: ModelSpec) -> Provision:
    url = repository_of(spec)
    file = openai_file(url)
    sizes = {file.name: openai_download.content_bytes(url)}
    return Provision(spec, Checkpoint(url, sum_in(url), file.parent, sizes), sizes)


def _listed(spec: ModelSpec) -> Provision:
    repository = repository_of(spec)
    listed = hub.listing(repository, spec.revision)
    names = needed(spec, listed.files)
    if not names:
        raise WeightsError(
            f"{repository} lacks files that {spec.backend} loads (it has "
            f"{', '.join(sorted(listed.files)[:12])}); name another asr_backend or revision"
        )
    folder = repository_folder(repository) / "snapshots" / listed.commit
    sizes = {name: listed.files[name] for name in names}
    missing = {name: size for name, size in sizes.items() if not _has(folder / name, size)}
    return Provision(spec, Checkpoint(repository, listed.commit, folder, sizes), missing, listed)


def _has(path: Path, n_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == n_bytes


# ---------------------------------------------------------------------------------------- room


def free_bytes(folder: Path) -> int:
    """Room on the disk of this (perhaps future) folder."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def cache_of(one: Provision) -> Path:
    """The folder of a library's cache that it is fetched into."""
    folder = one.checkpoint.folder
    return folder if is_openai(one.spec) else repository_folder(one.checkpoint.repository).parent


def check_room(found: Collection[Provision]) -> None:
    """`WeightsError` where what is missing does not fit on the disk of its cache."""
    disks: dict[int, tuple[Path, int]] = {}
    for one in found:
        folder = cache_of(one)
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        _, before = disks.get(existing.stat().st_dev, (existing, 0))
        disks[existing.stat().st_dev] = (existing, before + one.missing_bytes)
    for folder, n_bytes in disks.values():
        if n_bytes > (free := free_bytes(folder)):
            raise WeightsError(
                f"the weights still to fetch take {format_decimal_bytes(n_bytes)} and the disk of "
                f"{folder} has {format_decimal_bytes(free)} free; free some room, or set HF_HOME "
                "(of openai-whisper XDG_CACHE_HOME) to a folder on a larger disk"
            )


# ------------------------------------------------------------------------------------ download


class _Stopped(BaseException):
    """Ends a download that nobody waits for any more."""


class _Counter:
    """Bytes that have arrived, counted by the threads of a download."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self.note = ""
        self.stopped = False
        self._lock = threading.Lock()

    def add(self, n_bytes: int) -> None:
        if self.stopped:
            raise _Stopped
        with self._lock:
            self.n_bytes += n_bytes
            self.note = ""

    def wait(self, note: str) -> None:
        """What keeps it waiting, until more arrives."""
        self.note = note


def _download(found: Collection[Provision], listener: Listener | None) -> None:
    """In a thread of its own, so that this one tells where it stands and takes an interrupt."""
    lacking = [one for one in found if one.missing]
    total, arrived = sum(one.missing_bytes for one in lacking), 0
    meter = RateMeter()
    for one in lacking:
        counter = _Counter()
        faults: list[BaseException] = []
        thread = threading.Thread(
            target=_run, args=(one, counter, faults), name="fetch", daemon=True
        )
        thread.start()
        try:
            while thread.is_alive():
                thread.join(TICK_S)
                if listener is not None:
                    done = min(arrived + counter.n_bytes, total)
                    rate = meter.rate(done)
                    listener(FetchProgress(name_of(one.spec), done, total, rate, counter.note))
        finally:
            counter.stopped = True
            thread.join(STOP_S)  # after an interrupt, so that it leaves nothing half
        if faults:
            raise faults[0]
        arrived += one.missing_bytes


def _run(one: Provision, counter: _Counter, faults: list[BaseException]) -> None:
    try:
        if one.listed is None:
            (name,) = one.missing
            folder = one.checkpoint.folder
            openai_download.download(one.checkpoint.repository, folder / name, counter.add)
        else:
            for name in one.missing:  # one of the wrong size would be taken for whole
                forget(one.checkpoint.folder / name)
            hub.download(one.listed, one.missing, one.spec.revision, counter.add, counter.wait)
    except _Stopped:
        return
    except BaseException as error:  # raised where it is waited for
        faults.append(error)
