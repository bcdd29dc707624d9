"""00: what machine is this, what can run here, are weights and audio at hand?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridlab import catalog
from hybridlab.analysis.case_status import WITH_BYTES
from hybridlab.devices.nvml import fact_words
from hybridlab.devices.system_info import machine
from hybridlab.experiments.session import Session
from hybridlab.reporting import findings, labels
from hybridlab.reporting.rows import evidence_of
from hybridlab.units import counted, format_bytes


def machine_facts(session: Session) -> dict[str, str]:
    """What this machine is, as label -> text; a missing reading carries its reason."""
    found = machine()
    return {
        "system": f"{found['system']}, Python {found['python']}",
        "processor": f"{found['processor']}, {found['cores']} cores",
        "host memory": format_bytes(found["memory_bytes"] or 0),
        "device": f"{session.device.name}: {session.device.title()}",
        "capacity": format_bytes(session.device.capacity_bytes()),
        "free now": format_bytes(session.device.free_bytes()),
        "native dtypes": ", ".join(session.device.native_dtypes()),
        "GPU readings": fact_words(session.device.facts()),
    }


def backend_facts(session: Session) -> list[dict[str, str]]:
    """Which backends are installed, and the dtypes that they can keep on this device."""
    from importlib.metadata import PackageNotFoundError, version

    native = {*session.device.native_dtypes(), "int8"}
    rows = []
    for name, backend in catalog.BACKENDS.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = f"not installed: pip install 'hybridlab[{backend.extra}]'"
        dtypes = ", ".join(dtype for dtype in backend.dtypes if dtype in native)
        rows.append({"backend": name, "version": installed, "dtypes": dtypes})
    return rows


def clip_facts(session: Session) -> list[dict[str, Any]]:
    """The clips at hand, in seconds and words."""
    return [
        {
            "clip": clip.id,
            "audio s": clip.audio_s,
            "text": clip.text,
            "questions": len(clip.questions),
        }
        for clip in session.clips
    ]


def answer(session: Session, row: Mapping[str, Any]) -> list[str]:
    """What this machine is, whether the pair runs here, and what is at hand."""
    device, params = session.device, session.params
    here = f"{device.title()} ({device.name}) with {format_bytes(device.free_bytes())} free"
    pair = f"Voxtral {params.llm_model} and Whisper {params.asr_model}"
    clips = f"{counted(len(session.clips), 'clip')} are at hand"
    if row["status"] not in WITH_BYTES:
        return [f"This is {here}; {pair} gave no measurement ({labels.failure(row)}); {clips}."]
    peak = format_bytes(row["request_peak_bytes"])
    known = evidence_of(session.table("cases"))
    return [
        f"This is {here}; {pair} run here, {peak} at the request peak ({known}, n = 1 request); "
        f"their weights and {clips}."
    ]


def learnt(session: Session) -> list[str]:
    """What the words of the request are worth."""
    words = session.params.pocket_words
    found = findings.overflow_findings(session.table("cases"))
    return [*found, *([f"{labels.capital(words)}."] if words else [])]


def smoke(session: Session) -> dict[str, Any]:
    """One request through the pair in a fresh process: proof that everything is at hand."""
    requests = session.requests(1)
    return session.runner.run(session.case("setup", requests=requests, warmup=0))
