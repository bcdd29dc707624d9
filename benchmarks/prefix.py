"""What one prefix for two jobs saves, as JSON on stdout: `python -m benchmarks.prefix
[--audio-s 30 --new-tokens 16]`.

Voxtral alone transcribes and answers, by two requests (`two-requests`) and by two continuations of
one
encoded and prefilled prefix (`shared-prefix`), in turn on the same audio; ratios are taken within a
turn. Both must say the same. With random weights `--new-tokens` are said by either job.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

from hybridlab import catalog
from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.audio import load_clips, of_length
from hybridlab.devices import resolve_device
from hybridlab.devices.system_info import machine, versions
from hybridlab.models import ModelSpec, make_llm
from hybridlab.models.base import resolve_dtype
from hybridlab.strategies import CompletedRequest, Request, make_strategy

VARIANTS = ("two-requests", "shared-prefix")
TURNS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket", choices=list(catalog.VOXTRALS))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--audio-s", type=float, default=30.0)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--turns", type=int, default=TURNS)
    options = parser.parse_args()
    device = resolve_device(options.device)
    llm = make_llm(
        ModelSpec(
            model=options.model,
            backend="transformers",
            weights="pocket" if options.model == "pocket" else "random",
            dtype=resolve_dtype(options.dtype, backend="transformers", device=device, role="llm"),
        ),
        device,
    )
    llm.load()
    ways = {name: make_strategy("solo", name, asr=None, llm=llm) for name in VARIANTS}
    clip = load_clips()[0]
    # half a second less than asked for, so that the end of the last window is heard
    request = Request(
        id="r",
        samples=of_length(clip.samples(), options.audio_s - 0.5),
        question=clip.questions[1].text,
        max_new_tokens=options.new_tokens,
    )
    served: dict[str, list[CompletedRequest]] = {name: [] for name in VARIANTS}
    for _ in range(options.turns + 1):
        for name, way in ways.items():
            served[name].append(way.serve(request))
    said = {(one.transcript.tokens, one.answer.tokens) for own in served.values() for one in own}
    seconds = {name: [one.latency_s for one in own[1:]] for name, own in served.items()}
    ratio = bootstrap_interval(
        [b / a for a, b in zip(seconds["two-requests"], seconds["shared-prefix"], strict=True)]
    )
    results: dict[str, Any] = {"machine": machine(), "versions": versions(), **vars(options)}
    results |= {
        "device": device.title(),
        "dtype": llm.spec.dtype,
        "output_unchanged": len(said) == 1,
        "tokens": [[len(transcript), len(answer)] for transcript, answer in said],
        "median_s": {name: statistics.median(own) for name, own in seconds.items()},
        "shared_over_naive": ratio.value,
        "shared_over_naive_interval": [ratio.low, ratio.high],
    }
    print(json.dumps(results, indent=2))
    if len(said) != 1:
        sys.exit("the two ways say different things")


if __name__ == "__main__":
    main()
