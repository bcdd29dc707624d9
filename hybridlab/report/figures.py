"""The page's pictures: found in the run or drawn from its tables, embedded as data URIs."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybridlab import plots
from hybridlab.report.model import Run

#: Pictures beyond this are linked instead of embedded: the page stays below 5 MB.
BUDGET_BYTES = 4_200_000


@dataclass(frozen=True)
class Picture:
    """One figure of the page: `source` is a data URI, or '' where it is only linked."""

    name: str
    alt: str
    source: str
    link: str


def pictures(run: Run) -> list[Picture]:
    """Figures of the run in the order of the notebooks, then key plots that it lacks."""
    found: list[Picture] = []
    spent = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted((run.folder / "figures").glob("*.png"))
        for path in [*paths, *_drawn(run, {path.stem for path in paths}, Path(folder))]:
            own = path.parent.parent == run.folder
            source = data_uri(path)
            if spent + len(source) > BUDGET_BYTES:
                source = ""
            spent += len(source)
            link = f"figures/{path.name}" if own else ""
            if source or link:
                found.append(Picture(path.stem, alternative_text(path), source, link))
    return found


def _drawn(run: Run, names: set[str], folder: Path) -> Iterator[Path]:
    """The two plots that no report should lack, where the notebooks left none of that kind."""
    cases, trials = run.cases, run.tables["trials"]
    if not any("memory" in name for name in names) and len(cases):
        beside = cases[cases["experiment"] == "beside"]
        figure = plots.memory_bars(beside if len(beside) else cases)
        yield plots.save(figure, folder, "memory-bars")[0]
    if not any("latency" in name for name in names) and len(trials):
        yield plots.save(plots.latency(trials, cases), folder, "latency")[0]


def data_uri(png: Path) -> str:
    """The PNG with a palette, or the SVG beside it where that is smaller."""
    raster = _with_palette(png.read_bytes())
    svg = png.with_suffix(".svg")
    if svg.is_file() and svg.stat().st_size < len(raster):
        return _uri("image/svg+xml", svg.read_bytes())
    return _uri("image/png", raster)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _with_palette(png: bytes) -> bytes:
    """The same picture in at most 160 colours: plots have few, and take a third of the bytes."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        flat = image.convert("RGB").quantize(160, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    flat.save(buffer, format="PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)


def alternative_text(png: Path) -> str:
    """The finding that `plots.save` wrote into the file, else its name in words."""
    from PIL import Image

    with Image.open(png) as image:
        title = str(image.info.get("Title", "")).strip()
    return title or png.stem.replace("-", " ").replace("_", " ")
