"""What decoding a token costs against the floor that memory sets, as JSON on stdout:
`python -m benchmarks.decoding [--model mini-3b --dtype float16 --device cuda --kinds loop]`.

Random weights in the true architecture, so that every call says exactly so many tokens; the kinds
of decoding take turns in one run. A token's time is that of a long call less that of a call for one
token, over the tokens between them. The floor is the bytes that a token reads (text layers and
head) over the traffic of a plain copy on the device, which reads and writes every byte.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

from benchmarks.report import model_spec, options, publish, seconds
from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import Device, resolve_device
from hybridlab.models import make_llm
from hybridlab.models.base import AudioLanguageModel, compute_values
from hybridlab.models.transcription import TranscribeOptions

REPEATS = 5
COPIED_BYTES = 2**28


def token_seconds(model: AudioLanguageModel, tokens: int) -> float:
    """Seconds for one more token; a model that is not loaded is, and warmed up."""
    samples = [load_clips()[0].samples()]
    if not model.loaded:
        model.load()
        model.transcribe(
            samples, TranscribeOptions(max_new_tokens=tokens)
        )  # compiles where there is a compiler
    one, many = (
        seconds(
            lambda n=n: model.transcribe(samples, TranscribeOptions(max_new_tokens=n)), model.device
        )
        for n in (1, tokens)
    )
    return (many - one) / (tokens - 1)


def read_bytes(llm: AudioLanguageModel) -> int:
    """Bytes of weights that every token reads: all of the text model but its table of embeddings,
    of which a row is read, and the head."""
    model: Any = llm.module()
    text = [*model.model.language_model.named_parameters(), *model.lm_head.named_parameters()]
    return sum(tensor.nbytes for name, tensor in text if not name.startswith("embed_tokens"))


def copy_traffic_bytes_per_s(device: Device) -> float:
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device.name)
    target = torch.empty_like(source)
    took = [seconds(lambda: target.copy_(source), device) for _ in range(REPEATS + 1)]
    return 2 * COPIED_BYTES / statistics.median(took[1:])


def main() -> None:
    given = options(
        __doc__,
        model=("pocket", list(catalog.VOXTRALS)),
        device="auto",
        dtype="auto",
        attention=("auto", catalog.ATTENTIONS),
        kinds=(list(catalog.DECODINGS), catalog.DECODINGS),
        tokens=64,
        repeats=REPEATS,
    )
    device = resolve_device(given.device)
    models: dict[str, AudioLanguageModel] = {}
    for kind in given.kinds:
        fields = {"attention": given.attention, "decoding": kind}
        spec = model_spec(given.model, given.dtype, device, "llm", **fields)
        compute_values(spec)
        models[kind] = make_llm(spec, device)
    took: dict[str, list[float]] = {kind: [] for kind in models}
    traffic = copy_traffic_bytes_per_s(device)
    n_bytes = 0
    for _ in range(given.repeats):
        for kind, model in models.items():
            took[kind].append(token_seconds(model, given.tokens))
            n_bytes = read_bytes(model)
            if given.model != "pocket" and len(models) > 1:  # only one at a time has room
                model.unload()
    floor_s = n_bytes / traffic
    medians = {kind: statistics.median(own) for kind, own in took.items()}
    publish(
        model=given.model,
        dtype=spec.dtype,
        device=device.title(),
        bytes_per_token=n_bytes,
        copy_traffic_bytes_per_s=traffic,
        floor_tokens_per_s=1 / floor_s,
        kinds={
            kind: {
                "token_s": token_s,
                "tokens_per_s": 1 / token_s,
                "share_of_floor": floor_s / token_s,
                "over_generate": medians["generate"] / token_s if "generate" in medians else None,
                "values_s": took[kind],
            }
            for kind, token_s in medians.items()
        },
    )


if __name__ == "__main__":
    main()
