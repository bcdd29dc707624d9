"""The hub's cache and token, and which presets can run here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridlab import catalog, planner
from hybridlab.catalog.device_names import simulated_card
from hybridlab.cli.doctor_checks.finding import Finding
from hybridlab.config.defaults import NONE, PRESETS_DIR, presets, read_yaml
from hybridlab.config.params import NOTEBOOKS, Params, split
from hybridlab.devices import CpuDevice, Device, card_of, resolve_device
from hybridlab.errors import HybridlabError, UnavailableError
from hybridlab.simulation.build import compiler
from hybridlab.units import format_bytes

DEMO_PRESET = "pocket"


def hub() -> Finding:
    """What the hub's cache holds of the catalog, and whether a token is at hand. No network."""
    from huggingface_hub import constants

    from hybridlab.models.hub import TOKEN_VARIABLE, cached

    released = [known.hub_id for known in catalog.VOXTRALS.values() if known.hub_id]
    released += [known.hub_id for known in catalog.WHISPERS.values() if known.hub_id]
    held = [repository for repository in released if cached(repository)]
    token = TOKEN_VARIABLE in os.environ or Path(constants.HF_TOKEN_PATH).is_file()
    says = (
        f"cached: {', '.join(held) or 'none of the released models'}; "
        f"{'a' if token else 'no'} token (none of them needs one)"
    )
    if not constants.HF_HUB_OFFLINE or len(held) == len(released):
        return Finding(about="hub", says=says)
    return Finding(
        about="hub",
        state="lacks",
        says=f"{says}; HF_HUB_OFFLINE is set",
        means="released weights that are not cached cannot be fetched",
        mend="unset HF_HUB_OFFLINE",
    )


def reachable() -> Finding:
    """Ask the hub for the smallest released model: one request, a few seconds at most."""
    from hybridlab.models.hub import is_open

    repository = catalog.whisper("tiny").hub_id
    try:
        is_open(repository)
    except Exception as error:  # whatever the client raises, the hub is out of reach
        return Finding(
            about="hub answers",
            state="lacks",
            says=f"no ({type(error).__name__})",
            means="released weights cannot be fetched; random and pocket ones need no network",
            mend="hybridlab run params/pocket.yaml",
        )
    return Finding(about="hub answers", says="yes")


def preset_rows(folder: Path = PRESETS_DIR) -> list[Finding]:
    """Every preset: whether its pair can run on its device here, by the planner's word."""
    return [preset_row(name, read_yaml(folder / f"{name}.yaml")) for name in presets(folder)]


def preset_row(name: str, values: Mapping[str, Any]) -> Finding:
    about = f"preset {name}"
    try:
        split({"preset": NONE, **values}, NOTEBOOKS.values())  # as the runner would
        own = {n: v for n, v in values.items() if n in Params.model_fields}
        says = _fits_here(Params.from_mapping({"preset": NONE, **own}))
    except HybridlabError as error:
        demo = name == DEMO_PRESET
        return Finding(
            about=about,
            state="broken" if demo else "lacks",
            says="cannot run here",
            means=str(error),
            mend="pip install --editable ." if demo else f"hybridlab run params/{DEMO_PRESET}.yaml",
        )
    return Finding(about=about, says=says)


def _fits_here(params: Params) -> str:
    """Where the pair runs and what it takes there; `UnavailableError` where it cannot."""
    from hybridlab.models.base import resolve_dtype

    device = resolve_device(params.device)
    voxtral_dtype = resolve_dtype(
        params.voxtral_dtype, backend="transformers", device=device, role="analyst"
    )
    dtype = resolve_dtype(
        params.whisper_dtype, backend=params.whisper_backend, device=device, role="transcriber"
    )
    plan = planner.plan_pair(
        card_of(device) or catalog.HOST,
        catalog.whisper(params.whisper_size),
        catalog.voxtral(params.voxtral),
        backend=params.whisper_backend,
        dtype=dtype,
        voxtral_dtype=voxtral_dtype,
        capacity_bytes=device.capacity_bytes(),
    )
    _check_room(plan, device)
    where = {"cuda": "the GPU", "cpu": "the CPU"}[device.kind]
    if simulated_card(params.device) is not None:
        compiler()
        where = f"an {device.title()}"
    sources = dict.fromkeys([params.voxtral_weights, params.whisper_weights])
    return (
        f"{plan.voxtral} and {plan.whisper} ({', '.join(sources)} weights) on {where}, "
        f"{format_bytes(plan.total_bytes)} predicted{_to_fetch(params)}"
    )


def _to_fetch(params: Params) -> str:
    """What the first run has to fetch from the hub."""
    from hybridlab.models.hub import cached

    voxtral, whisper = catalog.voxtral(params.voxtral), catalog.whisper(params.whisper_size)
    wanted = [(params.voxtral_weights, voxtral.hub_id), (params.whisper_weights, whisper.hub_id)]
    missing = [name for source, name in wanted if source == "hub" and not cached(name)]
    return f"; the first run fetches {' and '.join(missing)}" if missing else ""


def _check_room(plan: planner.PairPlan, device: Device) -> None:
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
