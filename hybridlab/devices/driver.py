"""CUDA's own view of its devices, read by a short-lived process, so that nothing of CUDA stays in
the one that asks. Slower than NVML, but there wherever CUDA is, and in CUDA's own order.

Run as `python -m hybridlab.devices.driver [INDEX]`: all devices, or the free bytes of one.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import uuid
from ctypes import byref
from typing import Any

from hybridlab.errors import UnavailableError

LIBRARY = "libcuda.so.1"
ANSWER_TIMEOUT_S = 60.0
#: Numbers of `CUdevice_attribute` (cuda.h).
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
#: What an instance of a divided card (MIG) has in its name, after the card's own.
INSTANCE = " MIG "


def ask_driver(*words: str) -> Any:
    """What the short-lived process answers; `UnavailableError` with its reason where CUDA does not
    work."""
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "hybridlab.devices.driver", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"CUDA's driver did not answer in {ANSWER_TIMEOUT_S:.0f} s; run 'python -m "
            "hybridlab.devices.driver' to see it"
        ) from None
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise UnavailableError(f"no CUDA: {lines[-1]}")
    return json.loads(ended.stdout)


def read_devices(cuda: Any) -> list[dict[str, Any]]:
    """Each device that CUDA shows this process, in its order. Makes no context."""
    version, count = ctypes.c_int(), ctypes.c_int()
    _check(cuda.cuDriverGetVersion(byref(version)), "cuDriverGetVersion")
    _check(cuda.cuDeviceGetCount(byref(count)), "cuDeviceGetCount")
    return [
        {**_read_device(cuda, index), "cuda_version": version.value} for index in range(count.value)
    ]


def _read_device(cuda: Any, index: int) -> dict[str, Any]:
    handle, n_bytes, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    own_id = (ctypes.c_ubyte * 16)()
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(cuda.cuDeviceGet(byref(handle), index), "cuDeviceGet")
    _check(cuda.cuDeviceGetName(name, len(name), handle), "cuDeviceGetName")
    _check(cuda.cuDeviceGetUuid_v2(byref(own_id), handle), "cuDeviceGetUuid")
    _check(cuda.cuDeviceTotalMem_v2(byref(n_bytes), handle), "cuDeviceTotalMem")
    for value, attribute in ((major, CAPABILITY_MAJOR), (minor, CAPABILITY_MINOR)):
        _check(cuda.cuDeviceGetAttribute(byref(value), attribute, handle), "cuDeviceGetAttribute")
    title = name.value.decode()
    kind = "MIG" if INSTANCE in title else "GPU"
    return {
        "uuid": f"{kind}-{uuid.UUID(bytes=bytes(own_id))}",
        "name": title,
        "capacity_bytes": n_bytes.value,
        "capability": [major.value, minor.value],
    }


def read_free_bytes(cuda: Any, index: int) -> int:
    """What is free beside this process' own context, without which CUDA does not say."""
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _check(cuda.cuDeviceGet(byref(handle), index), "cuDeviceGet")
    _check(cuda.cuDevicePrimaryCtxRetain(byref(context), handle), "cuDevicePrimaryCtxRetain")
    _check(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    _check(cuda.cuMemGetInfo_v2(byref(free), byref(total)), "cuMemGetInfo")
    return free.value


def _check(code: int, call: str) -> None:
    if code:
        raise UnavailableError(f"{call} answers with error {code}")


def main() -> None:
    try:
        cuda = ctypes.CDLL(LIBRARY)
        _check(cuda.cuInit(0), "cuInit")
        index = sys.argv[1:]
        answer = read_free_bytes(cuda, int(index[0])) if index else read_devices(cuda)
    except (OSError, AttributeError, UnavailableError) as error:  # no library, or one without these
        raise SystemExit(str(error)) from None
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
