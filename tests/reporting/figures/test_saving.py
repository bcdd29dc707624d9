"""Figures are pure: same rows, same bytes; tables stay as they were; files speak for themselves."""

from __future__ import annotations

import inspect
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from hybridlab.reporting import figures
from tests.reporting.figures.drawn import DRAWN, Tables, words_of

FUNCTIONS = [name for name in figures.__all__ if name != "save"]
LEAST_POINTS = 9.0


def test_all_public_functions_are_drawn_here() -> None:
    source = inspect.getsource(inspect.getmodule(DRAWN["plan"]))  # type: ignore[arg-type]
    assert {name for name in FUNCTIONS if f"figures.{name}(" not in source} == set()


def outside_links(svg: str) -> list[str]:
    """What an SVG would have to fetch: everything but its own parts and embedded bytes."""
    links = re.findall(r"""(?:href|src)=["']([^"']*)|url\(([^)]*)\)|(@import|@font-face)""", svg)
    return [link for link in map("".join, links) if not link.startswith(("#", "data:"))]


@pytest.mark.parametrize("name", DRAWN)
def test_same_rows_same_bytes_and_the_rows_are_left_alone(
    name: str, tables: Tables, tmp_path: Path
) -> None:
    copies = {table: rows.copy(deep=True) for table, rows in tables.items()}
    settings = dict(mpl.rcParams)
    paths = [figures.save(DRAWN[name](tables), tmp_path / folder, "x") for folder in ("a", "b")]
    for table, rows in tables.items():
        pd.testing.assert_frame_equal(rows, copies[table])
    assert dict(mpl.rcParams) == settings
    assert [path.name for path in paths[0]] == ["x.png", "x.svg"]
    for one, other in zip(*paths, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert outside_links(paths[0][1].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ["memory_bars", "request_lanes", "quality_memory"])
def test_files_carry_the_finding_and_text_stays_text(
    name: str, tables: Tables, tmp_path: Path
) -> None:
    figure = DRAWN[name](tables)
    png, svg = figures.save(figure, tmp_path, "x")
    title = " ".join(figure.get_suptitle().split())
    with Image.open(png) as image:
        assert image.info["Title"] == title
        assert "n = " in image.info["Description"]
    root = ET.fromstring(svg.read_text(encoding="utf-8"))
    spaces = {"svg": "http://www.w3.org/2000/svg"}
    assert root.findtext("svg:title", namespaces=spaces) == title
    said = " ".join("".join(text.itertext()) for text in root.iterfind(".//svg:text", spaces))
    assert " ".join(said.split()).startswith(title) or title in " ".join(said.split())
    assert "n = " in said


def test_a_figure_without_rows_is_saved_with_what_is_missing(tmp_path: Path) -> None:
    png, _ = figures.save(figures.plan_bars([]), tmp_path, "x")
    with Image.open(png) as image:
        assert image.info["Title"] == "No plan was given, so no prediction is drawn."


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


def test_a_title_breaks_into_lines_of_like_length(tables: Tables) -> None:
    figure: Figure = DRAWN["request_lanes"](tables)
    lines = figure.get_suptitle().split("\n")
    assert len(lines) > 1
    assert min(map(len, lines)) > 0.5 * max(map(len, lines))
    assert "weights: llm random, asr random" in words_of(figure)
