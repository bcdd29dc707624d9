"""What one prefix for two jobs saves, as JSON on stdout: `python -m benchmarks.prefix
[--audio-s 30 --new-tokens 16]`.

Voxtral alone transcribes and answers, by two requests (`two-requests`) and by two continuations of
one encoded and prefilled prefix (`shared-prefix`), in turn on the same audio; ratios are taken
within a turn. Both must say the same. With random weights `--new-tokens` are said by either job.
"""

from __future__ import annotations

import statistics
import sys

from benchmarks.report import interval, model_spec, options, publish, ratios
from hybridlab import catalog
from hybridlab.audio import load_clips, of_length
from hybridlab.devices import resolve_device
from hybridlab.models import make_llm
from hybridlab.strategies import CompletedRequest, Request, make_strategy

VARIANTS = ("two-requests", "shared-prefix")


def main() -> None:
    given = options(
        __doc__,
        model=("pocket", list(catalog.VOXTRALS)),
        dtype="auto",
        device="auto",
        audio_s=30.0,
        new_tokens=16,
        turns=12,
    )
    device = resolve_device(given.device)
    weights = "pocket" if given.model == "pocket" else "random"
    llm = make_llm(model_spec(given.model, given.dtype, device, "llm", weights=weights), device)
    llm.load()
    ways = {name: make_strategy("solo", name, asr=None, llm=llm) for name in VARIANTS}
    clip = load_clips()[0]
    # half a second less than asked for, so that the end of the last window is heard
    request = Request(
        id="r",
        samples=of_length(clip.samples(), given.audio_s - 0.5),
        question=clip.questions[1].text,
        max_new_tokens=given.new_tokens,
    )
    served: dict[str, list[CompletedRequest]] = {name: [] for name in VARIANTS}
    for _ in range(given.turns + 1):
        for name, way in ways.items():
            served[name].append(way.serve(request))
    said = {(one.transcript.tokens, one.answer.tokens) for own in served.values() for one in own}
    took = {name: [one.latency_s for one in own[1:]] for name, own in served.items()}
    publish(
        **vars(given) | {"device": device.title(), "dtype": llm.spec.dtype},
        output_unchanged=len(said) == 1,
        tokens=[[len(transcript), len(answer)] for transcript, answer in said],
        median_s={name: statistics.median(own) for name, own in took.items()},
        **interval("shared_over_two_requests", ratios(*(took[n] for n in VARIANTS[::-1]))),
    )
    if len(said) != 1:
        sys.exit("the two ways say different things")


if __name__ == "__main__":
    main()
