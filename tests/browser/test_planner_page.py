"""The planner's page in a real browser: it says what the package says, holds its question in the
URL, and can be read and used by everybody."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from hybridlab import catalog, plan
from hybridlab.analysis.pick import candidates, pick_of, plan_leaves, serve_options
from hybridlab.analysis.plan_report import PlanReport
from hybridlab.planner import PairPlan, Request, plan_pair
from hybridlab.planner.limits import longest_audio_s
from hybridlab.reporting.labels import FIT_SIGNS, MOMENTS
from hybridlab.reporting.planner_page import planner_embed, planner_script
from hybridlab.reporting.templating import script_source
from hybridlab.units import GB, format_bytes
from tools.planner_page import PAGE

pytestmark = [pytest.mark.browser, pytest.mark.slow]

QUESTIONS = 1_000
#: The larger searches are asked of the first ones only.
SEARCHES = 60

Question = dict[str, Any]


def questions() -> list[Question]:
    """Random ones, among them every card with every way of attention."""
    found, random_ = [], random.Random(20_260)
    pairs = list(product(catalog.CARDS, catalog.ATTENTIONS))
    kept = [("auto", "auto"), *((b.name, d) for b in catalog.BACKENDS.values() for d in b.dtypes)]
    kept += [(backend, "auto") for backend in catalog.BACKENDS]
    sizes = [model.name for model in catalog.WHISPERS.values() if model.hub_id]
    for at in range(QUESTIONS):
        card, attention = pairs[at % len(pairs)]
        backend, dtype = random_.choice(kept)
        found.append(
            {
                "card": card,
                "asr_model": random_.choice(["auto", *catalog.WHISPER_SIZES, *sizes]),
                "asr_backend": backend,
                "asr_dtype": dtype,
                "llm_model": random_.choice(["mini-3b", "mini-3b", "small-24b"]),
                "llm_dtype": random_.choice(["auto", *catalog.LLM_DTYPES]),
                "attention": attention,
                "audio_s": random_.choice([0.5, 20, 30, 31, 60, 150.25, 600, 1234, 2400]),
                "batch": random_.choice([1, 1, 1, 2, 4, 7]),
                "beams": random_.choice([1, 1, 5]),
                "new_tokens": random_.choice([1, 64, 200, 500, 4096]),
                "margin_gb": random_.choice([0, 0.5, 1.7]),
            }
        )
    return found


def asked_of(question: Question) -> tuple[list[PairPlan], Request, int]:
    """All pairs that a question leaves open, its request and its margin in bytes."""
    names = ("audio_s", "batch", "beams", "new_tokens")
    request = Request(**{name: question[name] for name in names})
    llm_dtype = question["llm_dtype"]
    pairs = candidates(
        catalog.card(question["card"]),
        size=question["asr_model"],
        backend=question["asr_backend"],
        dtype=question["asr_dtype"],
        voxtral=catalog.voxtral(question["llm_model"]),
        llm_dtype=None if llm_dtype == "auto" else llm_dtype,
        request=request,
        attention=question["attention"],
    )
    return pairs, request, int(question["margin_gb"] * GB)


def named(pair: PairPlan | None) -> list[str] | None:
    return pair and [pair.llm_dtype, pair.asr_model, pair.asr_backend, pair.asr_dtype]


def told_of(pair: PairPlan) -> list[Any]:
    """Name, verdict, spare bytes, and low, expected and high of each moment and of the total."""
    sizes = [*(pair.moment(name) for name in MOMENTS), pair.total]
    bounds = [[size.low, size.expected, size.high] for size in sizes]
    return [named(pair), pair.fit, pair.margin_bytes, bounds]


def told_by_package(question: Question) -> list[Any]:
    pairs, _, margin_bytes = asked_of(question)
    return [[told_of(pair) for pair in pairs], named(pick_of(pairs, margin_bytes))]


#: The page's answers to all questions in one call.
ASK = """questions => {
  const {plan, question_of} = document.getElementById("planner").planner;
  const named = p => p && [p.llm_dtype, p.asr_model, p.asr_backend, p.asr_dtype];
  return questions.map(q => {
    const {pairs, best} = plan(question_of(q));
    return [pairs.map(p => [named(p), p.fit, p.margin_bytes,
      [p.moments.load_peak, p.moments.idle, p.moments.request_peak, p.total]]), named(best)];
  });
}"""
#: What it says of them, and the longest audio of the best combination for each size.
SAY = """questions => {
  const own = document.getElementById("planner").planner;
  return questions.map(q => {
    const answer = own.plan(own.question_of(q)), {asked, best, by_size} = answer;
    return [own.conclusion(answer), best && own.serve_line(best), own.remedies(by_size, asked),
      by_size.map(p => own.longest_audio_of(p, asked))];
  });
}"""


@pytest.fixture
def opened(page: Any) -> Callable[[str], Any]:
    """The page, offline, with this hash."""

    def go(hash_: str = "") -> Any:
        page.context.set_offline(True)
        page.goto("about:blank")
        page.goto(PAGE.as_uri() + hash_, timeout=30_000)
        return page

    return go


def test_every_figure_and_pick_is_the_packages(opened: Callable[[str], Any]) -> None:
    asked = questions()
    page = opened("")
    told = page.evaluate(ASK, asked)
    expected = [told_by_package(question) for question in asked]
    for question, own, other in zip(asked, expected, told, strict=True):
        assert own == other, question
    fits = {fit for pairs, _ in expected for _, fit, *_ in pairs}
    assert fits == {"fits", "depends", "does not fit"}
    picks = {tuple(best) for _, best in expected if best}
    assert len(picks) > 30
    assert any(best is None for _, best in expected)
    assert page.errors == []


def test_words_remedies_and_longest_audio_are_the_packages(opened: Callable[[str], Any]) -> None:
    sizes = ("auto", "auto", "large-v3")
    open_ = {"asr_backend": "auto", "asr_dtype": "auto"}
    asked = [
        question | open_ | {"asr_model": sizes[at % 3], "audio_s": max(question["audio_s"], 30)}
        for at, question in enumerate(questions())
        if question["card"] in ("t4", "l4", "rtx-3060", "rtx-4090")
    ][:SEARCHES]
    told = opened("").evaluate(SAY, asked)
    remedies = 0
    for question, (conclusion, serve, helps, longest) in zip(asked, told, strict=True):
        pairs, request, margin_bytes = asked_of(question)
        card = catalog.card(question["card"])
        report = PlanReport(
            card=card, request=request, margin_bytes=margin_bytes, pairs=tuple(pairs)
        )
        assert conclusion == report.conclusion()
        assert helps == report.remedies()
        line = report.pick and " ".join(["hybridlab", *serve_options(report.pick)])
        assert serve == line
        remedies += len(helps)
        expected = [longest_of(pair, request, margin_bytes) for pair in report.by_size]
        assert longest == expected
    assert remedies > 10


def longest_of(pair: PairPlan, request: Request, margin_bytes: int) -> float:
    def fits(audio_s: float) -> bool:
        longer = plan_pair(
            catalog.card(pair.card),
            catalog.whisper(pair.asr_model),
            catalog.voxtral(pair.llm_model),
            backend=pair.asr_backend,
            dtype=pair.asr_dtype,
            llm_dtype=pair.llm_dtype,
            attention=catalog.attention(pair.attention),
            request=replace(request, audio_s=audio_s),
        )
        return plan_leaves(longer, margin_bytes)

    return longest_audio_s(fits)


def rows(page: Any) -> dict[str, str]:
    """Words of each size's row, those that are folded among them."""
    page.eval_on_selector_all("#planner details", "all => all.forEach(e => { e.open = true; })")
    found = page.locator("#planner-sizes > li").all()
    return {row.locator("b").inner_text(): row.inner_text() for row in found}


def test_it_opens_with_what_plan_says_of_a_t4(opened: Callable[[str], Any]) -> None:
    page, report = opened(""), plan("t4")
    assert page.inner_text("#planner-answer") == report.conclusion()
    assert (
        page.inner_text("#planner-command") == f"hybridlab {' '.join(serve_options(report.pick))}"
    )
    assert list(rows(page)) == list(catalog.WHISPER_SIZES)
    for pair in report.by_size:
        words = rows(page)[pair.asr_model]
        assert f"{FIT_SIGNS[pair.fit]} {pair.fit}" in words
        assert report.why_not(pair) in words
        for moment, name in MOMENTS.items():
            assert f"{name}\n{format_bytes(pair.moment(moment).expected)}" in words
    assert page.inner_text("#planner").count("redict") == 1
    assert page.errors == page.fetched == []


def test_bars_and_the_capacity_have_their_bytes_as_lengths(opened: Callable[[str], Any]) -> None:
    page = opened("#planner?card=rtx-3060&audio_s=300")
    pair = plan("rtx-3060", audio_s=300).by_size[-1]
    whole, idle, load, edge = (
        page.locator(f"#planner-sizes .sum .{name}").last.bounding_box()
        for name in ("track", "idle", "tick", "capacity")
    )
    for drawn_px, n_bytes in (
        (idle["width"], pair.moment("idle").expected),
        (load["x"] + load["width"] / 2 - whole["x"], pair.load_peak_bytes),
    ):
        share = drawn_px / (edge["x"] - whole["x"])
        assert share == pytest.approx(n_bytes / pair.capacity_bytes, abs=0.01)
    rows(page)
    track, bar, line = (
        page.locator(f"#planner-sizes .{name}").last.bounding_box()
        for name in ("track", "bar", "capacity")
    )
    capacity_px = line["x"] - track["x"]
    assert bar["width"] / capacity_px == pytest.approx(
        pair.request_peak_bytes / pair.capacity_bytes, abs=0.01
    )
    parts = page.locator("#planner-sizes .bar").last.locator("i").all()
    drawn = sum(float(part.get_attribute("data-bytes")) for part in parts)
    assert drawn == pair.request_peak_bytes


def test_the_url_holds_the_question(opened: Callable[[str], Any]) -> None:
    page = opened("")
    page.select_option("#planner-card", "l4")
    page.select_option("#planner-asr_kept", "faster-whisper/int8")
    page.fill("#planner-audio_s", "600")
    hash_ = page.evaluate("location.hash")
    assert hash_.startswith("#planner?")
    answer = page.inner_text("#planner-answer")
    assert "(faster-whisper, int8)" in answer
    assert opened(hash_).inner_text("#planner-answer") == answer
    assert page.input_value("#planner-audio_s") == "600"
    page.select_option("#planner-card", "t4")
    page.select_option("#planner-asr_kept", "auto/auto")
    page.fill("#planner-audio_s", "30")
    assert page.evaluate("location.hash") == ""


def test_a_size_that_is_chosen_is_the_only_one_to_pick(opened: Callable[[str], Any]) -> None:
    page = opened("#planner?asr_model=distil-large-v3")
    report = plan("t4", asr_models=["distil-large-v3"])
    assert page.inner_text("#planner-answer") == report.conclusion()
    assert list(rows(page)) == [*catalog.WHISPER_SIZES, "distil-large-v3"]
    assert "pick" in rows(page)["distil-large-v3"]
    assert "not asked for" in rows(page)["large-v3"]


@pytest.mark.parametrize(
    ("hash_", "words"),
    [
        (
            "asr_model=large-v3&asr_backend=faster-whisper&asr_dtype=int8",
            "On NVIDIA T4: large-v3 (faster-whisper, int8) fits with a margin of 0.47 GiB; ",
        ),
        (
            "asr_model=turbo&asr_backend=openai-whisper&audio_s=2400",
            "turbo (openai-whisper) does not fit on NVIDIA T4 with a margin of 0.47 GiB.",
        ),
        (
            "asr_backend=openai-whisper&asr_dtype=float32&audio_s=2400",
            "No Whisper (openai-whisper, float32) fits on NVIDIA T4 with a margin of 0.47 GiB.",
        ),
    ],
)
def test_it_says_what_of_the_question_was_narrowed(
    opened: Callable[[str], Any], hash_: str, words: str
) -> None:
    assert opened(f"#planner?{hash_}").inner_text("#planner-answer").startswith(words)


def test_where_nothing_fits_it_says_what_would_help(opened: Callable[[str], Any]) -> None:
    page = opened("#planner?audio_s=600&batch=2")
    report = plan("t4", audio_s=600, batch=2)
    assert report.pick is None
    assert page.inner_text("#planner-answer") == report.conclusion()
    assert page.locator("#planner-remedies li").all_inner_texts() == report.remedies()
    assert not page.is_visible("#planner-copy")
    assert "✗ does not fit" in rows(page)["large-v3"]


@pytest.mark.parametrize(
    ("hash_", "words", "answers"),
    [
        ("card=t5", "The link has t5 as Card; choose one of: t4, l4,", True),
        ("gpu=t4", "The link asks for gpu; choose one of: card,", True),
        ("audio_s=3000", "Audio (s) is 3000; give 0.1 to 2400.", False),
        ("batch=1.5", "Batch is 1.5; give a whole number from 1 to 4096.", False),
        (
            "asr_backend=transformers&asr_dtype=bfloat16",
            "NVIDIA T4 computes in float32, float16, not in bfloat16: choose another",
            False,
        ),
    ],
)
def test_what_cannot_be_asked_is_one_line_that_names_the_fix(
    opened: Callable[[str], Any], hash_: str, words: str, answers: bool
) -> None:
    page = opened(f"#planner?{hash_}")
    assert words in page.inner_text("#planner-error")
    assert page.is_visible("#planner-answer") == answers
    assert page.errors == []


def test_the_serve_line_is_copied_by_keyboard(opened: Callable[[str], Any]) -> None:
    page = opened("")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    reached = []
    for _ in range(15):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        if reached[-1] == "planner-copy":
            break
    assert [name.removeprefix("planner-") for name in reached] == [
        *("card", "asr_model", "asr_kept", "llm_model", "llm_dtype", "attention"),
        *("audio_s", "batch", "beams", "new_tokens", "margin_gb", "copy"),
    ]
    page.keyboard.press("Enter")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.inner_text("#planner-command")
    assert copied.startswith("hybridlab serve --llm-model mini-3b")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_read_in_light_and_dark_on_desk_and_phone(
    opened: Callable[[str], Any],
    scheme: str,
    width: int,
    serious_violations: Callable[[Any], list[str]],
    screenshot: Callable[..., Path],
) -> None:
    page = opened("#planner?card=rtx-3060&batch=4")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    signs = " ".join(rows(page).values())
    assert all(f"{sign} {fit}" in signs for fit, sign in FIT_SIGNS.items())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 27)"}[scheme]
    assert serious_violations(page) == []
    screenshot(page, f"planner-{scheme}-{width}")
    page.fill("#planner-audio_s", "0")
    assert serious_violations(page) == []


def test_another_page_can_hold_it(page: Any, tmp_path: Path) -> None:
    """Its ids and styles stay its own, the other page's links and choice of colours keep working,
    and one hash in that page's content policy is all that its script needs."""
    own = script_source(planner_script())
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {own}"
    host = tmp_path / "report.html"
    host.write_text(
        '<!doctype html><html lang="en" data-theme="dark"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>host</title></head>'
        '<body><main><h1 id="top">host</h1><p>words</p>'
        f'{planner_embed()}<p id="case-1">case</p></main></body></html>',
        encoding="utf-8",
    )
    page.goto(f"{host.as_uri()}#case-1")
    assert page.inner_text("#planner-answer") == plan("t4").conclusion()
    assert page.evaluate("location.hash") == "#case-1"
    ids = page.eval_on_selector_all("#planner [id]", "all => all.map(e => e.id)")
    assert all(name.startswith("planner-") for name in ids)
    ink = "e => getComputedStyle(e).color"
    assert page.eval_on_selector("#planner-title", ink) == "rgb(231, 235, 240)"
    assert page.eval_on_selector("#top", ink) == "rgb(0, 0, 0)"
    page.fill("#planner-batch", "3")
    assert page.evaluate("location.hash") == "#planner?batch=3"
    assert page.errors == page.fetched == []
