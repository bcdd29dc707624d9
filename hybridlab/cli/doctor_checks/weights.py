"""The hub's cache and token, and which presets can run here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridlab import catalog, planner
from hybridlab.catalog.device_names import simulated_card
from hybridlab.cli.doctor_checks.base import CheckResult
from hybridlab.config.params import NOTEBOOKS, Params, split
from hybridlab.config.preset_files import NONE, PRESETS_DIR, presets, read_yaml
from hybridlab.devices import CpuDevice, Device, card_of, resolve_device
from hybridlab.errors import HybridlabError, UnavailableError
from hybridlab.simulation.build import compiler
from hybridlab.units import format_bytes

DEMO_PRESET = "pocket"


def hub() -> CheckResult:
    """What the hub's cache holds of the catalog, and whether a token is at hand. No network."""
    from huggingface_hub import constants

    from hybridlab.models.hub import TOKEN_VARIABLE, cached

    ids = [model.hub_id for model in catalog.VOXTRALS.values()]
    ids += [model.hub_id for model in catalog.WHISPERS.values()]
    released = [repository for repository in ids if repository]
    held = [repository for repository in released if cached(repository)]
    token = TOKEN_VARIABLE in os.environ or Path(constants.HF_TOKEN_PATH).is_file()
    detail = (
        f"cached: {', '.join(held) or 'none of the released models'}; "
        f"{'a' if token else 'no'} token (none of them needs one)"
    )
    if not constants.HF_HUB_OFFLINE or len(held) == len(released):
        return CheckResult("hub", detail)
    impact = "released weights that are not cached cannot be fetched"
    return CheckResult("hub", f"{detail}; HF_HUB_OFFLINE is set", impact, "unset HF_HUB_OFFLINE")


def preset_results(folder: Path = PRESETS_DIR) -> list[CheckResult]:
    """Every preset: whether its pair can run on its device here, as predicted."""
    return [preset_result(name, read_yaml(folder / f"{name}.yaml")) for name in presets(folder)]


def preset_result(name: str, values: Mapping[str, Any]) -> CheckResult:
    try:
        split({"preset": NONE, **values}, NOTEBOOKS.values())  # as the runner would
        own = {n: v for n, v in values.items() if n in Params.model_fields}
        detail = _fits_here(Params.from_mapping({"preset": NONE, **own}))
    except HybridlabError as error:
        demo = name == DEMO_PRESET
        fix = "pip install --editable ." if demo else f"hybridlab run params/{DEMO_PRESET}.yaml"
        return CheckResult(f"preset {name}", "cannot run here", str(error), fix, fatal=demo)
    return CheckResult(f"preset {name}", detail)


def _fits_here(params: Params) -> str:
    """Where the pair runs and what it takes there; `UnavailableError` where it cannot."""
    from hybridlab.models.pair import pair_of

    device = resolve_device(params.device)
    pair = pair_of(params, device)
    plan = planner.plan_pair(
        card_of(device) or catalog.HOST,
        catalog.whisper(pair.asr.model),
        catalog.voxtral(pair.llm.model),
        backend=pair.asr.backend,
        dtype=pair.asr.dtype,
        llm_dtype=pair.llm.dtype,
        capacity_bytes=device.capacity_bytes(),
    )
    _check_room(plan, device)
    where = {"cuda": "the GPU", "cpu": "the CPU"}[device.kind]
    if simulated_card(params.device) is not None:
        compiler()
        where = f"an {device.title()}"
    sources = dict.fromkeys([params.llm_weights, params.asr_weights])
    return (
        f"{plan.llm_model} and {plan.asr_model} ({', '.join(sources)} weights) on {where}, "
        f"{format_bytes(plan.total_bytes)} predicted"
    )


def _check_room(plan: planner.PairPlan, device: Device) -> None:
    """`UnavailableError` where the device or the host has less free than the pair takes."""
    free = device.free_bytes()
    if plan.total_bytes > free:
        raise UnavailableError(
            f"its pair takes {format_bytes(plan.total_bytes)} and {device.name} has "
            f"{format_bytes(free)} free"
        )
    host = CpuDevice().free_bytes()
    if device.kind != "cpu" and plan.host_bytes > host:
        raise UnavailableError(
            f"loading takes {format_bytes(plan.host_bytes)} of the host, which has "
            f"{format_bytes(host)} free"
        )
