"""The page's pictures: found in the run or drawn from its tables, embedded as data URIs."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from hybridlab.reporting import figures
from hybridlab.reporting.html.files import data_uri
from hybridlab.reporting.html.page import render
from hybridlab.reporting.html.view_model import Run
from hybridlab.reporting.rows import cases_of

#: The first figure of notebook 02 is drawn on page one, from all that the run's folder holds.
ON_PAGE_ONE = "02-which-fits"
#: Characters of all pictures. With tables, traces and words the page stays below 5 MB.
BUDGET_CHARACTERS = 2_700_000
#: The notebook of each figure that is drawn where no notebook has left one of that kind.
DRAWN_HERE = {"memory-bars": "02", "latency": "04"}


@dataclass(frozen=True)
class Picture:
    """One figure of the page; `source` is a data URI."""

    name: str
    alt: str
    source: str
    width: int
    height: int

    @property
    def anchor(self) -> str:
        return f"figure-{self.name}"


def pictures_block(run: Run, *, numbers: tuple[str, ...]) -> Markup | str:
    """The pictures of the notebooks with these numbers."""
    own = [picture for picture in pictures(run) if number_of(picture.name) in numbers]
    return render("pictures.html.j2", pictures=own) if own else ""


def number_of(name: str) -> str:
    """The number of the notebook that a figure belongs to: '02' of '02-memory'; figures of the
    reader's own notebooks have none."""
    number = DRAWN_HERE.get(name, name)[:2]
    return number if number.isdigit() else ""


@functools.lru_cache(maxsize=1)  # claims lead to pictures
def pictures(run: Run, *, budget: int = BUDGET_CHARACTERS) -> list[Picture]:
    """Figures of the run in the order of the notebooks, then key plots that it lacks; those beyond
    `budget` characters are left out, and said to be."""
    found: list[Picture] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted((run.folder / "figures").glob("*.png"))
        for path in [*paths, *_drawn(run, {path.stem for path in paths}, Path(folder))]:
            if path.stem == ON_PAGE_ONE:
                continue
            try:
                made = picture(path, budget=budget)
            except (OSError, SyntaxError):  # Pillow's words for no picture, and for half of one
                run.note(f"figures/{path.name} is damaged and was left out.")
                continue
            budget -= len(made.source)
            if made.source:
                found.append(made)
            else:
                run.note(
                    f"figures/{path.name} is too large for this page; the run's folder has it."
                )
    return found


def _drawn(run: Run, names: set[str], folder: Path) -> Iterator[Path]:
    """The two plots that no report should lack, where the notebooks left none of that kind."""
    if not any("memory" in name for name in names) and len(run.cases):
        beside = cases_of(run.cases, "co_residency")
        figure = figures.memory_bars(beside if len(beside) else run.cases)
        yield figures.save(figure, folder, "memory-bars")[0]
    if not any("latency" in name for name in names) and len(run.trials):
        yield figures.save(figures.latency(run.trials, run.cases), folder, "latency")[0]


def picture(path: Path, *, budget: int | None) -> Picture:
    """The PNG with a palette, or the SVG beside it where that is smaller (or where there is no
    `budget`: it stays sharp); what it shows is the finding that `figures.save` wrote into it."""
    from PIL import Image

    with Image.open(path) as image:
        title, (width, height) = str(image.info.get("Title", "")).strip(), image.size
        # plots have few colours and then take a third of the bytes; the octree keeps those of thin
        # lines, and is three times as fast as the median cut
        method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
        flat = image.convert("RGB").quantize(160, method=method, dither=dither)
    buffer = io.BytesIO()
    flat.save(buffer, format="PNG")
    content, kind = min(path.read_bytes(), buffer.getvalue(), key=len), "image/png"
    svg = path.with_suffix(".svg")
    if svg.is_file() and (budget is None or svg.stat().st_size < len(content)):
        content, kind = svg.read_bytes(), "image/svg+xml"
    source = data_uri(kind, content)
    return Picture(
        name=path.stem,
        alt=title or path.stem.replace("-", " ").replace("_", " "),
        source=source if budget is None or len(source) <= budget else "",
        width=width,
        height=height,
    )
