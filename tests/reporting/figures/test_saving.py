"""Same rows, same bytes; files speak for themselves."""

from __future__ import annotations

import inspect
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from hybridlab.reporting import figures
from tests.reporting.figures.drawn import DRAWN, Tables

FUNCTIONS = [name for name in figures.__all__ if name != "save"]
LEAST_POINTS = 9.0


def test_all_public_functions_are_drawn_here() -> None:
    source = inspect.getsource(inspect.getmodule(DRAWN["plan"]))  # type: ignore[arg-type]
    assert {name for name in FUNCTIONS if f"figures.{name}(" not in source} == set()


def outside_links(svg: str) -> list[str]:
    """What an SVG would have to fetch: everything but its own parts and embedded bytes."""
    links = re.findall(r"""(?:href|src)=["']([^"']*)|url\(([^)]*)\)|(@import|@font-face)""", svg)
    return [link for link in map("".join, links) if not link.startswith(("#", "data:"))]


#: With spread dots, lines of seaborn, hatches, and an image.
@pytest.mark.parametrize("name", ["latency", "soak", "request_lanes", "request"])
def test_same_rows_same_bytes_and_files_carry_the_finding(
    name: str, tables: Tables, tmp_path: Path
) -> None:
    made = [DRAWN[name](tables) for _ in range(2)]
    paths = [
        figures.save(figure, tmp_path / folder, "x")
        for folder, figure in zip("ab", made, strict=True)
    ]
    png, svg = paths[0]
    assert [path.name for path in paths[0]] == ["x.png", "x.svg"]
    for one, other in zip(*paths, strict=True):
        assert one.read_bytes() == other.read_bytes()
    text = svg.read_text(encoding="utf-8")
    assert outside_links(text) == []
    title = " ".join(made[0].get_suptitle().split())
    with Image.open(png) as image:
        assert image.info["Title"] == title
        assert "n = " in image.info["Description"]
    root = ET.fromstring(text)
    spaces = {"svg": "http://www.w3.org/2000/svg"}
    assert root.findtext("svg:title", namespaces=spaces) == title
    said = " ".join("".join(text.itertext()) for text in root.iterfind(".//svg:text", spaces))
    assert title in " ".join(said.split())
    assert "n = " in said


def test_a_figure_without_rows_is_saved_with_what_is_missing(tmp_path: Path) -> None:
    png, _ = figures.save(figures.memory_bars(pd.DataFrame()), tmp_path, "x")
    with Image.open(png) as image:
        assert image.info["Title"] == "No case was measured, so there is no memory to show."


@pytest.mark.parametrize("name", DRAWN)
def test_no_hatched_face_is_see_through(name: str, drawn: Callable[[str], Figure]) -> None:
    """An SVG fades a hatch with its face, until nothing of it is left."""
    shown = drawn(name).findobj(lambda artist: bool(getattr(artist, "get_hatch", str)()))
    faces = [np.atleast_2d(to_rgba_array(artist.get_facecolor())) for artist in shown]  # type: ignore[attr-defined]
    assert all((colours[:, 3] == 1).all() for colours in faces)


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_is_small(name: str, drawn: Callable[[str], Figure]) -> None:
    """At 150 dpi and half size 9 points are 9 pixels high."""
    shown = [text for text in drawn(name).findobj(Text) if text.get_text() and text.get_visible()]  # type: ignore[attr-defined]
    assert min(text.get_fontsize() for text in shown) >= LEAST_POINTS
