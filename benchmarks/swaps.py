"""Do weights keep every bit over many swaps at full size? As JSON on stdout:
`python -m benchmarks.swaps [--voxtral pocket --whisper large-v3 --variant arena --swap whisper]`.

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
from hybridlab.models import Analyst, TenantSpec, Transcriber, make_analyst, make_transcriber
from hybridlab.models.base import Role, Tenant, compute_values, resolve_dtype
from hybridlab.strategies import Request, make_strategy
from hybridlab.strategies.arena import weights_digest
from hybridlab.strategies.movers import Swap
from hybridlab.strategies.swapping import MOVERS, Swapping


def spec(model: str, dtype: str, device: Device, role: Role) -> TenantSpec:
    return TenantSpec(
        model=model,
        backend="transformers",
        weights="random",
        dtype=resolve_dtype(dtype, backend="transformers", device=device, role=role),
    )


def tenants_of(options: argparse.Namespace, device: Device) -> tuple[Transcriber, Analyst]:
    whisper = spec(options.whisper, options.whisper_dtype, device, "transcriber")
    voxtral = spec(options.voxtral, options.voxtral_dtype, device, "analyst")
    return make_transcriber(whisper, device), make_analyst(voxtral, device)


def loaded_digests(tenants: list[Tenant]) -> dict[str, str]:
    """Each tenant's hash as it comes from its loader, one at a time."""
    found = {}
    for tenant in tenants:
        tenant.load()
        found[tenant.name] = digest_of(tenant)
        tenant.unload()
    return found


def digest_of(tenant: Tenant) -> str:
    module = tenant.module()
    assert module is not None
    return weights_digest(module)


def swapped(made: Swapping, *, swaps: int, check_every: int, expected: dict[str, str]) -> Any:
    """Bring every swapped tenant in and let it go, `swaps` times; the speed of the copy alone
    beside the link's own."""
    seconds: dict[str, list[float]] = {}
    speeds: dict[str, list[float]] = {}
    checked = 0
    moving = [tenant for tenant in made.tenants if tenant not in made.resident]
    for number in range(1, swaps + 1):
        for tenant in moving:
            began = time.perf_counter()
            made.mover.bring_in(tenant)
            made.device.synchronize()
            seconds.setdefault(tenant.name, []).append(time.perf_counter() - began)
            if check_every and number % check_every == 0:
                if digest_of(tenant) != expected[tenant.name]:
                    sys.exit(f"{tenant.name}: other weights after {number} swaps")
                checked += 1
            made.mover.drop(tenant)
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
    parser.add_argument("--voxtral", default="pocket", choices=list(catalog.VOXTRALS))
    parser.add_argument("--voxtral-dtype", default="auto")
    parser.add_argument("--whisper", default="large-v3", choices=list(catalog.WHISPER_SIZES))
    parser.add_argument("--whisper-dtype", default="auto")
    parser.add_argument("--variant", default="arena", choices=list(MOVERS))
    parser.add_argument("--swap", default="whisper", choices=get_args(Swap))
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--check-every", type=int, default=10, help="swaps; 0: no hashes at all")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    transcriber, analyst = tenants_of(options, device)
    compute_values(transcriber.spec, analyst.spec)
    hashed = list(tenants_of(options, device)) if options.check_every else []
    expected = loaded_digests(hashed)
    made = make_strategy(
        "swapping",
        options.variant,
        transcriber=transcriber,
        analyst=analyst,
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
