"""A clip transcribed by faster-whisper on the host and on the card, as a program of its own: a
library that CTranslate2 does not find may end the process that asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

#: A card that has not answered by then will not.
TIMEOUT_S = 120.0


def transcripts(model: Path, *devices: str) -> list[str] | str:
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


def difference(found: list[str] | str) -> str:
    """What `transcripts` of host and card says against the card; '' where both say the same."""
    if isinstance(found, str):
        return found
    host, card = found
    return "" if host and card == host else f"it hears {card!r} where the host hears {host!r}"


def main(folder: str, *devices: str) -> None:
    import torch  # noqa: F401  # its libraries are there, too, where a model computes
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
