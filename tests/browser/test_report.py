"""The report in a real browser, offline: complete, accessible, and its traces can be brushed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridlab.reporting.html import build_comparison, build_report
from hybridlab.reporting.rows import RACE
from hybridlab.results.manifest import read_manifest, write_json
from tests.synthetic import change_cases, write_run

pytestmark = [pytest.mark.browser, pytest.mark.slow]

READY = "#chart[data-ready]"
#: The folded parts that are open.
OPEN = "[...document.querySelectorAll('details[open]')].map(fold => fold.id)"
#: Of A4 within the page's own margins, in CSS pixels.
PAPER = {"width": 703, "height": 1031}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page alone in its folder, as an attachment arrives."""
    page = build_report(write_run(tmp_path_factory.mktemp("run")))
    return page.rename(tmp_path_factory.mktemp("attachment") / "index.html")


@pytest.fixture
def opened(page: Any, report: Path) -> Iterator[Any]:
    page.context.set_offline(True)
    page.goto(report.as_uri(), timeout=60_000)
    page.wait_for_selector("#which-fits img")
    assert page.evaluate(OPEN) == []
    page.evaluate("document.getElementById('sharing').open = true")
    page.wait_for_selector(READY, timeout=60_000)
    yield page
    assert page.errors == []
    assert page.fetched == []


def until(page: Any, expression: str, *, seconds: float = 10.0) -> None:
    """Wait for something to be true. `page.wait_for_function` evaluates text inside the page, which
    the page's own policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"still not true: {expression}"
        page.wait_for_timeout(50)


def readout(page: Any) -> str:
    return str(page.locator("#readout p").first.inner_text())


def test_offline_with_pictures_that_have_size_and_words(
    opened: Any, serious_violations: Callable[[Any], list[str]], screenshot: Callable[..., Path]
) -> None:
    pictures = opened.eval_on_selector_all(
        "img", "all => all.map(i => [i.naturalWidth, i.width, i.height, i.alt.length])"
    )
    assert pictures
    assert all(min(sizes) > 15 for sizes in pictures)
    assert serious_violations(opened) == []
    opened.select_option("#theme", "dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(background) == "rgb(18, 22, 27)"
    assert serious_violations(opened) == []
    screenshot(opened, "report-dark")


def test_on_a_phone_nothing_is_outside_the_screen(
    opened: Any, screenshot: Callable[..., Path]
) -> None:
    """Every cell of every table is, under its column's name."""
    opened.set_viewport_size({"width": 390, "height": 844})
    until(opened, "document.querySelector('#chart canvas').clientWidth < 390")
    screenshot(opened, "report-phone")
    # the figure is wider than the screen: what it says stands under it in words
    assert opened.locator(".rows li").count() > 4
    assert "GiB free" in opened.inner_text(".rows .picked")
    opened.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    width = "document.documentElement.scrollWidth"
    assert opened.evaluate(width) == 390
    cells = opened.eval_on_selector_all(
        ".wide tbody th, .wide tbody td",
        """all => all.map(cell => [cell.getBoundingClientRect().left,
            cell.getBoundingClientRect().right, cell.tagName,
            getComputedStyle(cell, '::before').content])""",
    )
    assert len(cells) > 100
    assert all(0 <= left < right <= 390 for left, right, *_ in cells)
    assert all(len(name) > 2 for _, _, tag, name in cells if tag == "TD")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_all_that_is_folded_is_read_in_light_and_dark_on_desk_and_phone(
    page: Any,
    report: Path,
    scheme: str,
    width: int,
    serious_violations: Callable[..., list[str]],
) -> None:
    """No table is wider than its place, also with words that no line holds."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report.as_uri(), timeout=60_000)
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    page.wait_for_selector(READY, timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"
    assert page.eval_on_selector_all(".wide", wide) == []
    words = (
        "all => all.map(e => e.getBoundingClientRect()).filter(r => r.right > innerWidth).length"
    )
    assert page.eval_on_selector_all("#document th, #document td", words) == 0
    assert serious_violations(page, whatever=True) == []
    assert page.errors == page.fetched == []


def test_page_one_is_one_page_of_paper(
    page: Any, report: Path, tmp_path: Path, screenshot: Callable[..., Path]
) -> None:
    """Also with all that may stand above the answer; the second has the questions behind it."""
    run = with_cautions(write_run(tmp_path))
    for made in (report, build_report(run)):
        page.goto(made.as_uri())
        page.wait_for_selector("#which-fits img")
        pdf = page.pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 2
        page.emulate_media(media="print")
        page.set_viewport_size(PAPER)
        bottom = "document.querySelector('.one').getBoundingClientRect().bottom"
        words = "document.querySelector('.one').lastElementChild.getBoundingClientRect().bottom"
        assert page.evaluate(words) <= page.evaluate(bottom) + 1 <= PAPER["height"]
        figure = page.locator("#which-fits img").bounding_box()
        assert figure["height"] > 180  # it takes what the words leave
    screenshot(page, "report-print")


def with_cautions(run: Path) -> Path:
    """The run as a toy's, disturbed, and half of it missing."""
    change_cases(run, "co_residency", {"llm_model": "pocket"})
    change_cases(run, RACE, {"status": "invalid", "other_processes_cpu_share": 0.75})
    manifest = read_manifest(run)
    for name in ("00_setup", "01_voxtral_alone", "03_memory_limits", "05_parallel"):
        manifest["notebooks"][name]["status"] = "failed"
    write_json(run / "manifest.json", manifest)
    return run


def test_dragging_and_typing_change_the_window(opened: Any) -> None:
    whole = readout(opened)
    canvas = opened.locator("#chart canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    opened.select_option("#case", index=8)
    opened.fill("#from", "2")
    opened.fill("#to", "4")
    opened.press("#to", "Tab")
    until(opened, "document.querySelector('#readout p').innerText.includes('2 s to 4 s')")
    assert readout(opened) != whole
    opened.click("#whole")
    until(opened, "!document.querySelector('#readout p').innerText.includes('2 s to')")
    tooltips = []
    for height in range(40, int(box["height"]), 10):
        opened.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + height)
        tooltips.append(opened.evaluate("document.querySelector('#vg-tooltip-element')?.innerText"))
    assert any("phase" in (words or "") for words in tooltips)
    # drag across whatever is the overview: the strip between the lanes and the ledger
    for height in range(40, int(box["height"]), 20):
        y = box["y"] + height
        opened.mouse.move(box["x"] + box["width"] * 0.4, y)
        opened.mouse.down()
        opened.mouse.move(box["x"] + box["width"] * 0.6, y, steps=4)
        opened.mouse.up()
    until(opened, "Number(document.querySelector('#from').value) > 0")
    first, last = (float(opened.input_value(name)) for name in ("#from", "#to"))
    assert 0 < first < last
    assert readout(opened) != whole


def test_the_keyboard_reaches_everything(opened: Any) -> None:
    reached: list[str] = []
    for _ in range(60):
        opened.keyboard.press("Tab")
        reached.append(
            opened.evaluate("document.activeElement.id || document.activeElement.className")
        )
        if reached[-1] == "case":
            break
    assert reached[0] == "skip"
    assert reached[1] == "theme"
    assert reached[-1] == "case"
    before = opened.get_attribute("#chart", "data-ready")
    opened.keyboard.press("ArrowUp")
    until(opened, f"document.querySelector('#chart').dataset.ready !== '{before}'")
    opened.focus("figure button")
    opened.keyboard.press("Enter")
    assert opened.is_visible("dialog img")
    opened.keyboard.press("Escape")
    until(opened, "!document.querySelector('dialog')")


def test_evidence_opens_the_folded_cases(opened: Any) -> None:
    assert not opened.is_visible("#case-02-beside-medium")
    opened.click("#document > summary")
    opened.click('a[href="#case-02-beside-medium"] >> nth=0')
    assert opened.is_visible("#case-02-beside-medium")


def test_a_comparison(
    page: Any, tmp_path: Path, serious_violations: Callable[[Any], list[str]]
) -> None:
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    made = build_comparison(runs, tmp_path / "comparison.html")
    page.goto(made.as_uri(), timeout=30_000)
    assert serious_violations(page) == []
    assert page.errors == page.fetched == []
