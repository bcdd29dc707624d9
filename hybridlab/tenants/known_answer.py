"""A clip heard by faster-whisper on the host and on the card, as a program of its own: a library
that CTranslate2 does not find may end the process that asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

from hybridlab.device.nvml import nvml_facts

#: The small model that ships with hybridlab, in which both have to say the same.
MODEL = "pocket-m"
#: A card that has not answered by then will not.
TIMEOUT_S = 120.0


@cache
def unusable_on_card() -> str:
    """Why faster-whisper cannot compute on the card, naming wheel and driver; '' where it can. One
    program is started in the life of this process."""
    with tempfile.TemporaryDirectory(prefix="hybridlab-ct2-") as folder:
        reason = _reason(_heard(_model_in(Path(folder)), "cpu", "cuda"))
    if not reason:
        return ""
    driver = nvml_facts().get("driver")
    return f"{reason} (ctranslate2 {version('ctranslate2')}, driver {driver or 'unknown'})"


def _model_in(folder: Path) -> Path:
    from hybridlab.device import CpuDevice
    from hybridlab.tenants.base import TenantSpec
    from hybridlab.tenants.whisper_ctranslate2 import WhisperCtranslate2

    spec = TenantSpec(model=MODEL, backend="faster-whisper", weights="pocket", dtype="float32")
    return WhisperCtranslate2(spec, CpuDevice()).converted(folder)


def _heard(model: Path, *devices: str) -> list[str] | str:
    """What is said on each of the devices, or how the program ended."""
    command = [sys.executable, "-m", __name__, str(model), *devices]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {TIMEOUT_S:g} s"
    if ended.returncode == 0:
        said: list[str] = json.loads(ended.stdout.splitlines()[-1])
        return said
    complaints = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
    return complaints[-1]


def _reason(heard: list[str] | str) -> str:
    if isinstance(heard, str):
        return heard
    host, card = heard
    return "" if host and card == host else f"it hears {card!r} where the host hears {host!r}"


def main(folder: str, *devices: str) -> None:
    import torch  # noqa: F401  # its libraries are there, too, where a tenant computes
    from faster_whisper import WhisperModel

    from hybridlab.audio import load_clips

    samples, said = load_clips()[0].samples(), []
    for device in devices:
        model = WhisperModel(folder, device=device, compute_type="float32", local_files_only=True)
        segments, _ = model.transcribe(
            samples, language="en", beam_size=1, temperature=0.0, without_timestamps=True
        )
        said.append(" ".join(segment.text.strip() for segment in segments))
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
