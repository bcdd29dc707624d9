"""What decoding a token costs against the floor that memory sets, as JSON on stdout:
`python -m benchmarks.decoding [--model mini-3b --dtype float16 --device cuda --kinds loop]`.

Random weights in the true architecture, so that every call says exactly so many tokens; the kinds
of decoding take turns in one run. A token's time is that of a long call less that of a call for one
token, over the tokens between them. The floor is the bytes that a token reads (text layers and
head) over the traffic of a plain copy on the device, which reads and writes every byte.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch

from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import Device, resolve_device
from hybridlab.devices.system_info import machine, versions
from hybridlab.models import ModelSpec, make_llm
from hybridlab.models.base import AudioLanguageModel, compute_values, resolve_dtype

REPEATS = 5
COPIED_BYTES = 2**28


def token_seconds(tenant: AudioLanguageModel, tokens: int) -> float:
    """Seconds for one more token; a tenant that is not loaded is, and warmed up."""
    samples = [load_clips()[0].samples()]
    if not tenant.loaded:
        tenant.load()
        tenant.transcribe(samples, max_new_tokens=tokens)  # compiles where there is a compiler
    seconds = []
    for count in (1, tokens):
        tenant.device.synchronize()
        began = time.perf_counter()
        tenant.transcribe(samples, max_new_tokens=count)
        tenant.device.synchronize()
        seconds.append(time.perf_counter() - began)
    return (seconds[1] - seconds[0]) / (tokens - 1)


def read_bytes(tenant: AudioLanguageModel) -> int:
    """Bytes of weights that every token reads: all of the text model but its table of embeddings,
    of which a row is read, and the head."""
    model: Any = tenant.module()
    text = [*model.model.language_model.named_parameters(), *model.lm_head.named_parameters()]
    return sum(tensor.nbytes for name, tensor in text if not name.startswith("embed_tokens"))


def copy_traffic_bytes_per_s(device: Device) -> float:
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device.name)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(REPEATS + 1):
        device.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        device.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * COPIED_BYTES / statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket", choices=list(catalog.VOXTRALS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--attention", default="auto", choices=catalog.ATTENTIONS)
    parser.add_argument("--kinds", nargs="+", choices=catalog.DECODINGS, default=catalog.DECODINGS)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, backend="transformers", device=device, role="llm")
    tenants: dict[str, AudioLanguageModel] = {}
    for kind in options.kinds:
        spec = ModelSpec(
            model=options.model,
            backend="transformers",
            weights="random",
            dtype=dtype,
            attention=options.attention,
            decoding=kind,
        )
        compute_values(spec)
        tenants[kind] = make_llm(spec, device)
    seconds: dict[str, list[float]] = {kind: [] for kind in tenants}
    traffic = copy_traffic_bytes_per_s(device)
    n_bytes = 0
    for _ in range(options.repeats):
        for kind, tenant in tenants.items():
            seconds[kind].append(token_seconds(tenant, options.tokens))
            n_bytes = read_bytes(tenant)
            if options.model != "pocket" and len(tenants) > 1:  # only one at a time has room
                tenant.unload()
    floor_s = n_bytes / traffic
    plain_s = statistics.median(seconds["generate"]) if "generate" in seconds else None
    results: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "model": options.model,
        "dtype": dtype,
        "device": device.title(),
        "bytes_per_token": n_bytes,
        "copy_traffic_bytes_per_s": traffic,
        "floor_tokens_per_s": 1 / floor_s,
        "kinds": {
            kind: {
                "token_s": statistics.median(own),
                "tokens_per_s": 1 / statistics.median(own),
                "share_of_floor": floor_s / statistics.median(own),
                "over_generate": plain_s and plain_s / statistics.median(own),
                "values_s": own,
            }
            for kind, own in seconds.items()
        },
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
