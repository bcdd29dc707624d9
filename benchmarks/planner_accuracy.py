"""The planner beside torch's own allocator on a simulated card, as JSON on stdout:
`python -m benchmarks.planner_accuracy [--card t4 --sizes tiny large-v3 --audio-s 30 600]`.

One Voxtral-Mini-3B stays loaded while each Whisper comes and goes; after a warm-up each request is
served once by either model, and the allocator's peaks are read: allocated and reserved. A request
that runs out of memory is a row, too: one that the planner called `fits` is counted as wrong.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import options, publish
from hybridlab import catalog, planner
from hybridlab.catalog.device_names import PREFIX
from hybridlab.devices import resolve_device
from hybridlab.models import ModelSpec
from hybridlab.models.base import compute_values
from hybridlab.models.factory import make_asr, make_llm
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.planner.memory_plan import PairPlan, native_combinations
from hybridlab.processes.fork_server import shared_server
from hybridlab.units import MIB

NEW_TOKENS = 2
WARM_UP_S = 5.0
QUESTION = "What is said?"
PROMPT_TOKENS = 8  # of this question
#: What an expected peak may be off: a share, or bytes where that is less.
MOST_SHARE, MOST_BYTES = 0.03, 64 * MIB
LONGEST_S = 6 * 3600.0
BACKENDS = ("transformers", "openai-whisper")  # the others allocate outside torch

Cell = tuple[float, int]


def measure(path: str, card: str, sizes: list[str], cells: list[Cell]) -> None:
    """In a process with the card: a JSON line for each request, appended as it is observed."""
    import torch

    known = catalog.card(card)
    llm_dtype = planner.default_voxtral_dtype(known)
    spec = ModelSpec(model="mini-3b", backend="transformers", weights="random", dtype=llm_dtype)
    compute_values(spec)
    device = resolve_device("cuda")
    llm = make_llm(spec, device)
    llm.load()
    for size, (backend, dtype) in itertools.product(sizes, native_combinations(known)):
        if backend not in BACKENDS:
            continue
        asr = make_asr(
            ModelSpec(model=size, backend=backend, weights="random", dtype=dtype), device
        )

        def serve(seconds: float, batch: int, asr: Any = asr) -> bool:
            clips = [np.zeros(int(seconds * catalog.SAMPLE_RATE_HZ), np.float32)] * batch
            try:
                if not asr.loaded:
                    asr.load()
                asr.transcribe(clips, TranscribeOptions(language="en", max_new_tokens=NEW_TOKENS))
                llm.answer(clips, [QUESTION] * batch, max_new_tokens=NEW_TOKENS)
            except torch.OutOfMemoryError:
                return False
            return True

        loaded = serve(WARM_UP_S, 1)
        for seconds, batch in cells if loaded else [(WARM_UP_S, 1)]:
            gc.collect()
            torch.cuda.empty_cache()
            device.reset_peak()
            row = {
                "asr_model": size,
                "asr_backend": backend,
                "asr_dtype": dtype,
                "audio_s": seconds,
                "batch": batch,
                "served": loaded and serve(seconds, batch),
                "allocated_bytes": torch.cuda.max_memory_allocated(),
                "reserved_bytes": torch.cuda.max_memory_reserved(),
            }
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        asr.unload()
        device.release()


def planned(card: str, row: dict[str, Any]) -> PairPlan:
    request = planner.Request(
        audio_s=row["audio_s"],
        batch=row["batch"],
        new_tokens=NEW_TOKENS,
        prompt_tokens=PROMPT_TOKENS,
    )
    return planner.plan_pair(
        catalog.card(card),
        catalog.whisper(row["asr_model"]),
        catalog.voxtral("mini-3b"),
        backend=row["asr_backend"],
        dtype=row["asr_dtype"],
        request=request,
    )


def compared(card: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each row with what was predicted of it."""
    for row in rows:
        plan = planned(card, row)
        allocated, reserved = plan.allocated("request_peak"), plan.reserved("request_peak")
        off = abs(allocated.expected - row["allocated_bytes"])
        within = off <= max(MOST_SHARE * row["allocated_bytes"], MOST_BYTES)
        yield row | {
            "fit": plan.fit,
            "predicted_bytes": allocated.expected,
            "reserved_range_bytes": [reserved.low, reserved.high],
            "within": within if row["served"] else None,
            "in_range": reserved.low <= row["reserved_bytes"] <= reserved.high
            if row["served"]
            else None,
        }


def summary(rows: list[dict[str, Any]]) -> dict[str, int]:
    served = [row for row in rows if row["served"]]
    return {
        "requests": len(rows),
        "served": len(served),
        "within_3_percent_or_64_mib": sum(row["within"] for row in served),
        "reserved_in_range": sum(row["in_range"] for row in served),
        "fits_but_ran_out": sum(row["fit"] == "fits" and not row["served"] for row in rows),
        "does_not_fit_but_served": sum(row["fit"] == "does not fit" for row in served),
    }


def main() -> None:
    # by the name that a child finds it by
    in_child = importlib.import_module("benchmarks.planner_accuracy").measure
    given = options(
        __doc__,
        card=("t4", list(catalog.CARDS)),
        sizes=list(catalog.WHISPER_SIZES),
        audio_s=["30", "120", "300", "600"],
        batch=["1", "4"],
    )
    cells = [(float(s), int(b)) for s, b in itertools.product(given.audio_s, given.batch)]
    with tempfile.TemporaryDirectory(prefix="hybridlab-accuracy-") as folder:
        found, log = Path(folder) / "rows.jsonl", Path(folder) / "log"
        server = shared_server(f"{PREFIX}{given.card}")
        ended = server.run(
            in_child,
            str(found),
            given.card,
            given.sizes,
            cells,
            log=log,
            timeout_s=LONGEST_S,
        )
        if not ended.ok:
            raise RuntimeError(log.read_text(encoding="utf-8")[-2000:])
        rows = [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()]
    rows = list(compared(given.card, rows))
    publish(card=given.card, summary=summary(rows), rows=rows)


if __name__ == "__main__":
    main()
