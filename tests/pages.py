"""Reading a page of the report: its tags, links, pictures and text, and whether it is sound."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from hybridlab.reporting.html import build_report

VOID = {"meta", "img", "br", "hr", "link", "input", "col"}


class Page(HTMLParser):
    """Collects tags, links, pictures and text; faults are tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attrs[name] or "" for found, attrs in self.tags if found == tag and name in attrs]


def with_pictures(run: Path) -> Path:
    """The run with white pictures of the two kinds that every page has, so that none is drawn."""
    for name in ("02-memory", "07-latency"):
        Image.new("RGB", (40, 30), "white").save(run / "figures" / f"{name}.png")
    return run


def load(run: Path) -> Page:
    return Page(build_report(run).read_text(encoding="utf-8"))


def checked(run: Path) -> Page:
    """The page of a run, which is sound and clean."""
    page = load(run)
    check_sound(page)
    check_clean(page)
    return page


def check_sound(page: Page) -> None:
    assert page.faults == []
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(page.attributes("nav", "aria-labelledby")) <= set(ids)
    for target in page.attributes("a", "href"):
        assert not target.startswith("#") or target[1:] in ids
    assert [tag for tag, _ in page.tags].count("h1") == 1
    kinds = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    # the page's own and the planner's; what they unpack is text/plain or JSON
    assert kinds.count(None) == 1 + ("planner-facts" in ids)
    assert set(kinds) <= {None, "text/plain", "application/json"}


def check_clean(page: Page) -> None:
    alts = " ".join(page.attributes("img", "alt"))
    assert re.findall(r"\b(nan|None|NaT|inf|Traceback)\b", f"{page.text} {alts}") == []
