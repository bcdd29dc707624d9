"""Audio from outside: decoded in a worker of its own, within limits of size, time and memory.

Nothing of a request is a path or a name here: the worker is handed bytes, and libsndfile or FFmpeg
tells from them what they are.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import resource
from contextlib import suppress
from functools import partial

import numpy as np

from hybridlab.audio import windows
from hybridlab.audio.decoding import read_recording
from hybridlab.audio.mixing import Extent
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import AudioError, AudioTooShortError, HybridlabError, WorkerLostError
from hybridlab.processes.worker import Worker
from hybridlab.server.errors import ApiError, bad_request, internal_error, queue_full, too_long
from hybridlab.server.jobs import DecodedAudio
from hybridlab.server.settings import Settings
from hybridlab.units import MIB

log = logging.getLogger("hybridlab.server")
MAX_CHANNELS = 8
USUAL_RATE_HZ = 48_000
MAX_RATE_HZ = 192_000
#: What decoding holds at its worst, in copies of the audio as float32 at its own rate: the blocks,
#: their concatenation, and what soxr makes of it.
COPIES = 4
BASE_BYTES = 256 * MIB
#: Addresses of FFmpeg's libraries, which are loaded for the first file that needs them: 100 MiB.
LIBRARY_BYTES = 128 * MIB


class AudioDecoder:
    """Workers that decode uploads, one at a time each."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.restarts = 0
        self._waiting = 0
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._workers = [Worker("decoder") for _ in range(settings.decoders)]

    async def start(self) -> None:
        for worker in self._workers:
            await self._begin(worker)
            self._idle.put_nowait(worker)

    async def decode(self, data: bytes) -> DecodedAudio:
        """`ApiError` for what cannot be decoded within the limits."""
        if not data:
            raise bad_request("the audio file is empty", code="bad_audio")
        if self._waiting >= 2 * self.settings.max_queue:
            raise queue_full(1)
        self._waiting += 1
        try:
            worker = await self._idle.get()
        finally:
            self._waiting -= 1
        # to its end even where the client goes away: the worker must come back idle
        return await asyncio.shield(asyncio.ensure_future(self._decode(worker, data)))

    async def _decode(self, worker: Worker, data: bytes) -> DecodedAudio:
        """A worker that is lost is replaced and the file tried once more: something else may have
        ended it."""
        try:
            for _ in range(2):
                await self._ensure_running(worker)
                with suppress(WorkerLostError):
                    return await self._within_limits(worker, data)
        finally:
            self._idle.put_nowait(worker)
        raise bad_request(
            "the audio file ended its decoder twice; convert it to WAV or FLAC", code="bad_audio"
        )

    async def _ensure_running(self, worker: Worker) -> None:
        """Start it again if it has ended; where that fails, the next file tries anew."""
        if worker.pid is not None:
            return
        try:
            await self._begin(worker)
        except (OSError, HybridlabError) as error:
            log.error("the decoder cannot be started again: %s", error)
            raise internal_error("the decoder") from None
        self.restarts += 1

    async def _within_limits(self, worker: Worker, data: bytes) -> DecodedAudio:
        timeout_s = self.settings.decode_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await worker.call_async(None, decode_audio, data, self.settings.max_audio_s)
        except AudioError as error:
            raise bad_audio(error) from None
        except (ApiError, WorkerLostError):
            raise
        except TimeoutError:  # which ended the worker
            raise bad_request(
                f"the audio file took longer than {timeout_s:g} s; convert it to WAV or FLAC",
                code="bad_audio",
            ) from None
        except Exception as error:
            if out_of_memory(error) is None:
                log.error("the decoder failed: %s", error)
                raise internal_error("the decoder") from None
            raise ApiError(
                413, "audio_too_large", "the audio takes too much memory to decode; shorten it"
            ) from None

    async def _begin(self, worker: Worker) -> None:
        await asyncio.to_thread(worker.start)
        try:
            await worker.call_async(None, confine, decoding_bytes(self.settings.max_audio_s))
        except BaseException:
            worker.kill()  # no file for one that is not confined
            raise

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()


def bad_audio(error: AudioError) -> ApiError:
    """What the client is told of audio that no model could use; too short has OpenAI's code."""
    too_short = isinstance(error, AudioTooShortError)
    return bad_request(str(error), code="audio_too_short" if too_short else "bad_audio")


def decoding_bytes(max_audio_s: float) -> int:
    """What decoding may take above what its process has: the longest audio at a usual rate."""
    return BASE_BYTES + LIBRARY_BYTES + int(COPIES * 4 * USUAL_RATE_HZ * max_audio_s)


# -------------------------------------------------------------------------- inside the worker


def confine(more_bytes: int) -> None:
    """Let this process take so much more memory, and write no file."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decode_audio(data: bytes, max_audio_s: float) -> DecodedAudio:
    """Float32 mono at 16 kHz with its windows; silence is audio too. `AudioError` for what is none;
    `ApiError` for more than `max_audio_s`, counted while decoding: a header may lie."""
    try:
        found = read_recording(data, name="the file", check=partial(_check, max_audio_s))
    except AudioError as error:
        if (memory := out_of_memory(error)) is not None:
            raise MemoryError(memory.message) from None
        raise
    pieces = windows(found.samples)
    borders = np.cumsum([piece.size for piece in pieces])[:-1].tolist()
    return DecodedAudio(found.samples, tuple(borders), note=found.note)


def _check(max_audio_s: float, found: Extent) -> None:
    """Refuse odd shapes, and more than so long; nothing is decoded where the header says so."""
    if not 1 <= found.channels <= MAX_CHANNELS:
        raise AudioError(f"the file has {found.channels} channels; mix it down to {MAX_CHANNELS}")
    if not 1000 <= found.rate_hz <= MAX_RATE_HZ:
        raise AudioError(f"the file has {found.rate_hz} samples a second; resample it to 16000")
    if found.n_frames > math.ceil(max_audio_s * found.rate_hz):
        raise too_long(found.seconds, max_audio_s, "the server")
