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

#: The figure of notebook 02 that answers the first question.
WHAT_FITS = "02-three-numbers"
#: Characters of all pictures. With tables, traces and words the page stays below 5 MB.
BUDGET_CHARACTERS = 2_700_000


@dataclass(frozen=True)
class Picture:
    """One figure of the page: `source` is a data URI, or '' where it is only linked."""

    name: str
    alt: str
    source: str
    link: str
    width: int
    height: int

    @property
    def anchor(self) -> str:
        return f"figure-{self.name}"


def pictures_block(run: Run) -> Markup:
    """Every picture with its name, and a link where the run has its file."""
    return render("pictures.html.j2", pictures=pictures(run))


def what_fits(run: Run) -> Markup | str:
    """Load peak, idle and request peak: of a simulated card whose run lies in this one's folder,
    else of this run. The picture needs no other file."""
    for folder in [*(inner.folder for inner in run.inner), run.folder]:
        path = folder / "figures" / f"{WHAT_FITS}.png"
        if path.is_file():
            picture = _picture(path, own=False, budget=path.stat().st_size * 2)
            shown = render("picture.html.j2", picture=picture)
            return Markup("<figure>{}</figure>").format(shown)
    return ""


@functools.lru_cache(maxsize=1)  # claims lead to pictures
def pictures(run: Run, *, budget: int = BUDGET_CHARACTERS) -> list[Picture]:
    """Figures of the run in the order of the notebooks, then key plots that it lacks; those beyond
    `budget` characters are linked instead of embedded."""
    found: list[Picture] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted((run.folder / "figures").glob("*.png"))
        for path in [*paths, *_drawn(run, {path.stem for path in paths}, Path(folder))]:
            spent = sum(len(picture.source) for picture in found)
            try:
                picture = _picture(path, own=path in paths, budget=budget - spent)
            except (OSError, SyntaxError):  # Pillow's words for no picture, and for half of one
                run.note(f"figures/{path.name} is damaged and was left out.")
                continue
            if picture.source or picture.link:
                found.append(picture)
    return found


def _drawn(run: Run, names: set[str], folder: Path) -> Iterator[Path]:
    """The two plots that no report should lack, where the notebooks left none of that kind."""
    if not any("memory" in name for name in names) and len(run.cases):
        beside = cases_of(run.cases, "co_residency")
        figure = figures.memory_bars(beside if len(beside) else run.cases)
        yield figures.save(figure, folder, "memory-bars")[0]
    if not any("latency" in name for name in names) and len(run.trials):
        yield figures.save(figures.latency(run.trials, run.cases), folder, "latency")[0]


def _picture(path: Path, *, own: bool, budget: int) -> Picture:
    """The PNG with a palette, or the SVG beside it where that is smaller; what it shows is the
    finding that `figures.save` wrote into the file."""
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
    if svg.is_file() and svg.stat().st_size < len(content):
        content, kind = svg.read_bytes(), "image/svg+xml"
    source = data_uri(kind, content)
    return Picture(
        name=path.stem,
        alt=title or path.stem.replace("-", " ").replace("_", " "),
        source=source if len(source) <= budget else "",
        link=f"figures/{path.name}" if own else "",
        width=width,
        height=height,
    )
