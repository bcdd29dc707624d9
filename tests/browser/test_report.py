"""The report in a real browser, offline: complete, accessible, and its traces can be brushed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridlab.reporting.html import build_comparison, build_report
from tests.synthetic import write_run

pytestmark = [pytest.mark.browser, pytest.mark.slow]

READY = "#chart[data-ready]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page alone in its folder, as an attachment arrives."""
    page = build_report(write_run(tmp_path_factory.mktemp("run")))
    return page.rename(tmp_path_factory.mktemp("attachment") / "index.html")


@pytest.fixture
def opened(page: Any, report: Path) -> Iterator[Any]:
    page.context.set_offline(True)
    page.goto(report.as_uri(), timeout=60_000)
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


def test_phone_width_does_not_overflow(opened: Any, screenshot: Callable[..., Path]) -> None:
    opened.set_viewport_size({"width": 390, "height": 844})
    until(opened, "document.querySelector('#chart canvas').clientWidth < 390")
    width = "document.documentElement.scrollWidth"
    assert opened.evaluate(width) == 390
    screenshot(opened, "report-phone")


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
