"""Colours as colour-blind eyes and grey paper see them: where two come close, a second channel
(hatch, marker) tells them apart.

Dichromats are simulated by Machado, Oliveira and Fernandes (2009, IEEE TVCG 15, 1291), differences
are distances in CAM02-UCS (Luo, Cui and Li 2006), both by colorspacious; about 1 is just noticed.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import seaborn as sns
from colorspacious import cspace_convert
from matplotlib.colors import to_hex, to_rgb

import hybridlab
from hybridlab.reporting import palette

#: Small marks and thin lines need far more than a difference that is just noticed.
CLEAR = 10.0
DICHROMATS = {"deuteranopia": "deuteranomaly", "protanopia": "protanomaly"}
#: Of each set that is seen in one figure: colour, and what else tells its members apart.
SETS: dict[str, dict[str, tuple[str, str]]] = {
    "owners": palette.OWNER_LOOK,
    "models": {n: (palette.OWNER_COLOURS[n], m) for n, m in palette.MODEL_MARKERS.items()},
    "strategies": palette.STRATEGY_LOOK,
    "stages": palette.STAGE_LOOK,
    "moments": palette.MOMENT_LOOK,
    "remedies": palette.REMEDY_LOOK,
    "predicted": palette.PREDICTED_LOOK,
    "fit": {
        f"{fits} {at}": (c, "")
        for fits, two in palette.FIT_LOOK.items()
        for at, c in enumerate(two)
    },
}


def seen(colour: str, eyes: str) -> npt.NDArray[np.float64]:
    """A colour in CAM02-UCS (J', a', b') as these eyes see it, or printed in grey."""
    rgb = np.array(to_rgb(colour))
    if eyes in DICHROMATS:
        space = {"name": "sRGB1+CVD", "cvd_type": DICHROMATS[eyes], "severity": 100}
        rgb = np.clip(cspace_convert(rgb, space, "sRGB1"), 0, 1)
    place: npt.NDArray[np.float64] = cspace_convert(rgb, "sRGB1", "CAM02-UCS")
    return place * (1, 0, 0) if eyes == "grey" else place


def distance(one: str, other: str, eyes: str) -> float:
    return float(np.linalg.norm(seen(one, eyes) - seen(other, eyes)))


def test_the_colours_are_seaborns() -> None:
    assert list(palette.COLORBLIND) == sns.color_palette("colorblind").as_hex()


def test_the_servers_page_has_the_same_colours() -> None:
    """Server and reports import nothing of each other."""
    (page,) = (Path(hybridlab.__file__).parent / "server").rglob("page.css")
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", page.read_text(encoding="utf-8")))
    names = {"llm": "llm", "asr": "asr", "server": "base"}
    assert {name: found[name] for name in names} == {
        name: palette.OWNER_COLOURS[owner] for name, owner in names.items()
    }


@pytest.mark.parametrize("eyes", ["all", *DICHROMATS, "grey"])
@pytest.mark.parametrize("name", SETS)
def test_members_are_told_apart(name: str, eyes: str) -> None:
    for (one, (first, mark)), (other, (second, sign)) in itertools.combinations(
        SETS[name].items(), 2
    ):
        if distance(first, second, eyes) < CLEAR:
            assert mark != sign, f"{one} and {other} look alike to {eyes}"


@pytest.mark.parametrize("eyes", DICHROMATS)
@pytest.mark.parametrize("name", ["models", "strategies"])
def test_models_and_strategies_need_no_second_channel(name: str, eyes: str) -> None:
    """A thin line has no room for a marker everywhere."""
    for (first, _), (second, _) in itertools.combinations(SETS[name].values(), 2):
        assert distance(first, second, eyes) > CLEAR


def test_phases_of_one_model_differ_in_grey_or_in_hatch() -> None:
    """A phase is a share of its model's colour on white: J' falls as the share rises."""
    for role in palette.MODEL_MARKERS:
        colour = palette.OWNER_COLOURS[role]
        looks = [
            (to_hex(palette.tint(colour, strength)), hatch)
            for strength, hatch in palette.PHASE_LOOK.values()
        ]
        for (one, hatch), (other, sign) in itertools.combinations(looks, 2):
            light = abs(seen(one, "grey")[0] - seen(other, "grey")[0])
            assert hatch != sign or light > 2.5
