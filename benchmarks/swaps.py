"""Do weights keep every bit over many swaps at full size? As JSON on stdout:
`python -m benchmarks.swaps [--llm-model pocket --asr-model large-v3 --variant single-buffer --swap
asr]`.

Random weights in their true architecture. Hashes are taken from the models as they were loaded
and, every few swaps (`--check-every 0`: never), from the weights that were brought in; a request is
served before the first swap and after the last, and both models must say the same tokens.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial
from typing import Any, get_args

from benchmarks.report import model_spec, options, publish, seconds
from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import resolve_device
from hybridlab.models import ModelSpec, make_asr, make_llm
from hybridlab.models.base import Model, compute_values
from hybridlab.strategies import Request, make_strategy
from hybridlab.strategies.offload.base import Swap
from hybridlab.strategies.offload.weight_buffer import weights_digest
from hybridlab.strategies.swapping import Swapping


def loaded_digests(models: list[Model]) -> dict[str, str]:
    """Each model's hash as it comes from its loader, one at a time."""
    found = {}
    for model in models:
        model.load()
        found[model.name] = digest_of(model)
        model.unload()
    return found


def digest_of(model: Model) -> str:
    module = model.module()
    assert module is not None
    return weights_digest(module)


def swapped(made: Swapping, *, swaps: int, check_every: int, expected: dict[str, str]) -> Any:
    """Bring every swapped model in and let it go, `swaps` times; the speed of the copy alone
    beside the link's own."""
    moving = [model for model in made.models if model not in made.resident]
    took: dict[str, list[float]] = {model.name: [] for model in moving}
    speeds: dict[str, list[float]] = {}
    checked = 0
    for number in range(1, swaps + 1):
        for model in moving:
            onload = partial(made.offloader.onload, model)
            took[model.name].append(seconds(onload, made.device))
            if check_every and number % check_every == 0:
                if digest_of(model) != expected[model.name]:
                    sys.exit(f"{model.name}: other weights after {number} swaps")
                checked += 1
            made.offloader.offload(model)
            for span in model.drain_spans():
                if span.phase == "copy-in" and span.n_bytes:
                    speed = span.n_bytes / (span.end_s - span.start_s)
                    speeds.setdefault(model.name, []).append(speed)
    return {
        "swaps_of_each": swaps,
        "hashes_equal": checked,
        "link_bytes_per_s": made.link_bytes_per_s,
        "median_copy_in_bytes_per_s": {n: statistics.median(own) for n, own in speeds.items()},
        "median_in_s": {name: statistics.median(values) for name, values in took.items()},
    }


def main() -> None:
    given = options(
        __doc__,
        llm_model=("pocket", list(catalog.VOXTRALS)),
        llm_dtype="auto",
        asr_model=("large-v3", list(catalog.WHISPER_SIZES)),
        asr_dtype="auto",
        variant=("single-buffer", list(catalog.strategy("swapping").variants)),
        swap=("asr", get_args(Swap)),
        swaps=50,
        check_every=10,  # swaps; 0: no hashes at all
        device="auto",
    )
    device = resolve_device(given.device)
    asr: ModelSpec = model_spec(given.asr_model, given.asr_dtype, device, "asr")
    llm: ModelSpec = model_spec(given.llm_model, given.llm_dtype, device, "llm")
    compute_values(asr, llm)
    hashed = [make_asr(asr, device), make_llm(llm, device)] if given.check_every else []
    expected = loaded_digests(hashed)
    pair = {"asr": make_asr(asr, device), "llm": make_llm(llm, device)}
    made = make_strategy("swapping", given.variant, **pair, options={"swap": given.swap})
    assert isinstance(made, Swapping)
    made.open()
    samples = load_clips()[0].samples()
    request = Request(id="r", samples=samples, question="?", max_new_tokens=4, asr_max_new_tokens=4)
    before = made.serve(request)
    outcome = swapped(made, swaps=given.swaps, check_every=given.check_every, expected=expected)
    after = made.serve(request)
    made.close()
    same = all(
        getattr(before, text).tokens == getattr(after, text).tokens
        for text in ("transcript", "answer")
    )
    publish(**vars(given) | outcome | {"device": device.title(), "same_tokens": same})
    if not same:
        sys.exit("the models say something else after the swaps")


if __name__ == "__main__":
    main()
