"""Every sentence of docs/serving.md and /openapi.json is run by a test that promises.yaml names, or
says there why not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.server.promised import (
    PAGE,
    PROJECT,
    TABLE,
    Promise,
    described,
    lacks_of,
    of_openapi,
    of_page,
    promises,
)

#: Of all sentences, those that no test runs.
MOST_NOT_RUN = 0.08


@pytest.fixture(scope="module")
def told() -> set[str]:
    """All sentences of both documents."""
    return {*of_page(PAGE.read_text(encoding="utf-8")), *of_openapi(described())}


def test_the_table_has_every_sentence_once_and_no_other(told: set[str]) -> None:
    known = Counter(one for promise in promises() for one in promise.says)
    fix = f"write it into {TABLE.relative_to(PROJECT)} with the test that runs it"
    assert sorted(told - set(known)) == [], f"new or changed; {fix}"
    assert sorted(set(known) - told) == [], "told no more; take it out of the table"
    assert [one for one, count in known.items() if count > 1] == []


def test_every_test_that_the_table_names_is_there_and_runs() -> None:
    lacks = {
        name: lack for promise in promises() for name in promise.run_by if (lack := lacks_of(name))
    }
    assert lacks == {}, "name another test, or write this one"


def test_what_nothing_runs_here_says_why_and_is_little(told: set[str]) -> None:
    """Also what only a test with released weights runs."""
    kinds = [
        (bool(one.run_by), bool(one.not_here), bool(one.promises_nothing)) for one in promises()
    ]
    assert {sum(kind) for kind in kinds} == {1}, "of the three, one"
    real = [one.says for one in promises() if one.run_by and all(map(_real, one.run_by))]
    assert real == [], "`make test` runs none of these tests: say so in not_here"
    not_run = sum(len(one.says) for one in promises() if not one.run_by)
    assert not_run < MOST_NOT_RUN * len(told)


def _real(name: str) -> bool:
    return name.startswith("tests/real/")


# ------------------------------------------------------------------------------ of itself


def test_a_page_is_read_sentence_by_sentence() -> None:
    page = (
        "# A title\n\nIt **waits** at\nmost `0.1 s`. Then [it](a.md) ends.\n\n"
        "- An item: `x` is 1.\n\n```\nhybridlab serve\n```\n\n"
        "| option | what |\n| --- | --- |\n| `--a` | is it |\n\n"
        "<!-- begin chat fields -->\n| field | | why |\n| --- | --- | --- |\n"
        '| `n` | served | one |\n| `tools` | refused | none (unless it is `"auto"`) |\n'
        "<!-- end chat fields -->\n"
    )
    assert list(of_page(page)) == [
        "It waits at most 0.1 s.",
        "Then it ends.",
        "An item: x is 1.",
        "hybridlab serve",
        "--a | is it",
        "ChatBody.n: one",
        "ChatBody.tools: refused: none",
        'ChatBody.tools: unless it is "auto"',
    ]


def test_every_description_is_read() -> None:
    """Wherever it stands."""

    def texts(node: object) -> list[str]:
        if isinstance(node, list):
            return [text for one in node for text in texts(one)]
        if not isinstance(node, dict):
            return []
        own = [node[key] for key in ("summary", "description") if isinstance(node.get(key), str)]
        return own + [text for one in node.values() for text in texts(one)]

    page = described()
    read = " ".join(of_openapi(page))
    assert len(texts(page)) > 150
    for text in texts(page):
        for sentence in " ".join(text.split()).split(". "):
            assert sentence in read


@pytest.mark.parametrize(
    ("code", "lack"),
    [
        ("def test_a() -> None:\n    assert True\n", ""),
        ("async def test_a() -> None:\n    assert True\n", ""),
        ("def test_b() -> None:\n    assert True\n", "is not there"),
        ("@pytest.mark.skip\ndef test_a() -> None:\n    assert True\n", "is skipped always"),
        ("@pytest.mark.skip('x')\ndef test_a() -> None:\n    assert True\n", "is skipped always"),
        ("@pytest.mark.xfail\ndef test_a() -> None:\n    assert True\n", "is skipped always"),
        ("@pytest.mark.skipif(x)\ndef test_a() -> None:\n    assert True\n", ""),
        ("pytestmark = [pytest.mark.skip]\ndef test_a() -> None:\n    pass\n", "is skipped always"),
        ("def test_a() -> None:\n    '''Why'''\n    pytest.skip('later')\n", "is skipped always"),
    ],
)
def test_a_test_that_never_runs_is_none(code: str, lack: str, tmp_path: Path) -> None:
    (path := tmp_path / "test_x.py").write_text(code)
    assert lacks_of(f"{path}::test_a") == lack
    assert lacks_of(f"{tmp_path}/test_y.py::test_a") == "is not there"


def test_an_entry_has_known_keys() -> None:
    with pytest.raises(TypeError, match="run_with"):
        Promise(says=["x"], run_with=["y"])  # type: ignore[call-arg]
