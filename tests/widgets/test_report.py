"""The report at the end of a notebook: a frame, a link, and on Colab a button that downloads it."""

from __future__ import annotations

import sys
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest

from hybridlab.config import preset_files
from hybridlab.config.preset_files import colab_lack
from hybridlab.experiments.live_report import report_link
from hybridlab.widgets import download, inline_report


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    path = tmp_path / "outputs" / "a run" / "index.html"
    path.parent.mkdir(parents=True)
    path.write_text('<!doctype html><p title="x">said</p>')
    return path


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Colab's module was asked to hand to the browser."""
    asked: list[str] = []
    google, colab, files = (ModuleType(f"google{name}") for name in ("", ".colab", ".colab.files"))
    files.download = asked.append  # type: ignore[attr-defined]
    colab.files = files  # type: ignore[attr-defined]
    for module in (google, colab, files):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    return asked


def test_the_link_goes_to_the_file_from_where_the_notebook_lies(page: Path) -> None:
    assert 'href="outputs/a%20run/index.html"' in report_link(page)
    assert str(page) in report_link(page)
    assert download(page).data == report_link(page)


def test_the_page_is_shown_as_it_is(page: Path) -> None:
    assert page.read_text() in unescape(inline_report(page).data)


def test_on_colab_a_button_downloads_it_and_no_link_is_dead(
    page: Path, downloaded: list[str]
) -> None:
    button = download(page)
    assert downloaded == []
    button.click()
    assert downloaded == [str(page)]
    assert "href" not in report_link(page) and str(page) in report_link(page)


def test_a_colab_without_a_gpu_is_told_how_to_get_one(
    downloaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preset_files, "has_gpu", lambda: False)
    assert "Change runtime type > T4 GPU" in colab_lack()
    monkeypatch.setattr(preset_files, "has_gpu", lambda: True)
    assert colab_lack() == ""
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    monkeypatch.setattr(preset_files, "has_gpu", lambda: False)
    assert colab_lack() == ""
