"""Do weights keep every bit over many swaps at full size? As JSON on stdout:
`python -m benchmarks.swaps [--llm-model pocket --asr-model large-v3 --variant single-buffer --swap
asr]`.

Random weights in their true architecture. Hashes are taken from the tenants as they were loaded
and, every few swaps, from the weights that were brought in; a request is served before the first
swap and after the last, and both tenants must say the same tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any, get_args

from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import Device, resolve_device
from hybridlab.devices.system_info import machine, versions
from hybridlab.models import AudioLanguageModel, ModelSpec, SpeechRecognizer, make_asr, make_llm
from hybridlab.models.base import Model, Role, compute_values, resolve_dtype
from hybridlab.strategies import Request, make_strategy
from hybridlab.strategies.offload.base import Swap
from hybridlab.strategies.offload.weight_buffer import weights_digest
from hybridlab.strategies.swapping import Swapping


def spec(model: str, dtype: str, device: Device, role: Role) -> ModelSpec:
    return ModelSpec(
        model=model,
        backend="transformers",
        weights="random",
        dtype=resolve_dtype(dtype, backend="transformers", device=device, role=role),
    )


def tenants_of(
    options: argparse.Namespace, device: Device
) -> tuple[SpeechRecognizer, AudioLanguageModel]:
    whisper = spec(options.asr_model, options.asr_dtype, device, "asr")
    voxtral = spec(options.llm_model, options.llm_dtype, device, "llm")
    return make_asr(whisper, device), make_llm(voxtral, device)


def loaded_digests(tenants: list[Model]) -> dict[str, str]:
    """Each tenant's hash as it comes from its loader, one at a time."""
    found = {}
    for tenant in tenants:
        tenant.load()
        found[tenant.name] = digest_of(tenant)
        tenant.unload()
    return found


def digest_of(tenant: Model) -> str:
    module = tenant.module()
    assert module is not None
    return weights_digest(module)


def swapped(made: Swapping, *, swaps: int, check_every: int, expected: dict[str, str]) -> Any:
    """Bring every swapped tenant in and let it go, `swaps` times; the speed of the copy alone
    beside the link's own."""
    seconds: dict[str, list[float]] = {}
    speeds: dict[str, list[float]] = {}
    checked = 0
    moving = [tenant for tenant in made.models if tenant not in made.resident]
    for number in range(1, swaps + 1):
        for tenant in moving:
            began = time.perf_counter()
            made.offloader.onload(tenant)
            made.device.synchronize()
            seconds.setdefault(tenant.name, []).append(time.perf_counter() - began)
            if check_every and number % check_every == 0:
                if digest_of(tenant) != expected[tenant.name]:
                    sys.exit(f"{tenant.name}: other weights after {number} swaps")
                checked += 1
            made.offloader.offload(tenant)
            for span in tenant.drain_spans():
                if span.phase == "copy-in" and span.n_bytes:
                    speed = span.n_bytes / (span.end_s - span.start_s)
                    speeds.setdefault(tenant.name, []).append(speed)
    return {
        "swaps_of_each": swaps,
        "hashes_equal": checked,
        "link_bytes_per_s": made.link_bytes_per_s,
        "median_copy_in_bytes_per_s": {n: statistics.median(own) for n, own in speeds.items()},
        "median_in_s": {name: statistics.median(values) for name, values in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llm-model", default="pocket", choices=list(catalog.VOXTRALS))
    parser.add_argument("--llm-dtype", default="auto")
    parser.add_argument("--asr-model", default="large-v3", choices=list(catalog.WHISPER_SIZES))
    parser.add_argument("--asr-dtype", default="auto")
    parser.add_argument(
        "--variant", default="single-buffer", choices=list(catalog.strategy("swapping").variants)
    )
    parser.add_argument("--swap", default="asr", choices=get_args(Swap))
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--check-every", type=int, default=10, help="swaps; 0: no hashes at all")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    asr, llm = tenants_of(options, device)
    compute_values(asr.spec, llm.spec)
    hashed = list(tenants_of(options, device)) if options.check_every else []
    expected = loaded_digests(hashed)
    made = make_strategy(
        "swapping",
        options.variant,
        asr=asr,
        llm=llm,
        options={"swap": options.swap},
    )
    assert isinstance(made, Swapping)
    made.open()
    request = Request(id="r", samples=load_clips()[0].samples(), question="?", max_new_tokens=4)
    first = made.serve(request)
    outcome = swapped(made, swaps=options.swaps, check_every=options.check_every, expected=expected)
    last = made.serve(request)
    made.close()
    same = (first.transcript.tokens, first.answer.tokens) == (
        last.transcript.tokens,
        last.answer.tokens,
    )
    results = {"machine": machine(), "versions": versions(), **vars(options), **outcome}
    print(json.dumps(results | {"device": device.title(), "same_tokens": same}, indent=2))
    if not same:
        sys.exit("the tenants say something else after the swaps")


if __name__ == "__main__":
    main()
