"""Which Whisper: one answer, whoever is asked."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import hybridlab
from hybridlab import catalog, planner
from hybridlab.analysis.fit_report import evaluate_fit
from hybridlab.analysis.pick import (
    DEFAULT_MARGIN_BYTES,
    DEFAULT_MARGIN_GB,
    RULE,
    best_by_size,
    candidates,
    leaves,
    margin_words,
    pick,
    pick_of,
    plan_leaves,
    rank,
    recognizer_name,
    remedy,
    serve_options,
    why_not,
)
from hybridlab.analysis.verdict import answer_sentence
from hybridlab.cli.commands import app
from hybridlab.errors import ParameterError
from hybridlab.planner import Estimate, Request
from hybridlab.planner.limits import MOST
from hybridlab.server.settings import Settings
from hybridlab.units import GB

T4, MINI = catalog.card("t4"), catalog.voxtral("mini-3b")


def identity(plan: Any) -> tuple[str, str, str]:
    return plan.asr_model, plan.asr_backend, plan.asr_dtype


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


# ------------------------------------------------------------------------------------- the rule


def test_the_rule_on_a_card_where_everything_fits() -> None:
    """Best published accuracy, then precision, then the catalog's order of backends."""
    plans = planner.plan_table(catalog.card("h200"))
    best = pick_of(plans)
    assert best is not None
    wer = {size: catalog.whisper(size).published_wer for size in catalog.WHISPER_SIZES}
    assert best.asr_model == min(wer, key=lambda size: wer[size] or 1)
    assert (best.asr_backend, best.asr_dtype) == ("transformers", "float16")
    size = best.asr_model
    order = [
        rank(size, "transformers", "float16"),
        rank(size, "openai-whisper", "float16"),
        rank(size, "faster-whisper", "float32"),
        rank(size, "transformers", "bfloat16"),
        rank(size, "faster-whisper", "int8"),
        rank("turbo", "transformers", "float16"),
        rank("medium", "transformers", "float32"),
    ]
    assert all(first < second for first, second in pairwise(order))
    # float32 keeps what OpenAI released in float16: no more precise, and more bytes
    assert rank(size, "transformers", "float32") == rank(size, "transformers", "float16")


def test_every_released_size_has_its_published_figures() -> None:
    sizes = [catalog.whisper(size) for size in catalog.WHISPER_SIZES]
    assert all(0 < (s.published_wer or 0) < 1 and (s.relative_speed or 0) >= 1 for s in sizes)
    by_wer = sorted(sizes, key=lambda s: s.published_wer or 1)
    assert [s.name for s in by_wer] == ["large-v3", "turbo", "medium", "small", "base", "tiny"]
    pocket = [catalog.whisper(size) for size in catalog.POCKET_SIZES]
    assert not any(s.published_wer or s.relative_speed for s in pocket)
    ranks = [rank(s.name, "transformers", "float16") for s in (*by_wer, *reversed(pocket))]
    assert ranks == sorted(ranks)


def test_the_margin_is_left_beyond_what_the_range_leaves_open() -> None:
    assert DEFAULT_MARGIN_BYTES == int(DEFAULT_MARGIN_GB * GB) > 0
    capacity = Estimate(100 * GB, 100 * GB, 102 * GB)
    assert leaves(Estimate.exact(100 * GB - DEFAULT_MARGIN_BYTES), capacity)
    assert not leaves(Estimate.exact(100 * GB - DEFAULT_MARGIN_BYTES + 1), capacity)
    assert leaves(Estimate.exact(100 * GB), capacity, 0)
    assert not leaves(Estimate(90 * GB, 90 * GB, 101 * GB), capacity, 0)  # 'depends'


@pytest.mark.parametrize("page", ["README.md", "docs/method.md"])
def test_the_pages_state_the_rule_and_the_margin(project: Path, page: str) -> None:
    text = " ".join((project / page).read_text(encoding="utf-8").split())
    assert RULE in text
    stated = text.split(RULE)[1][:300]
    assert margin_words().removeprefix("a margin of ") in stated
    assert f"`--margin-gb {DEFAULT_MARGIN_GB:g}`" in stated


@pytest.mark.parametrize("card", catalog.CARDS)
@pytest.mark.parametrize("margin_gb", [0.0, DEFAULT_MARGIN_GB, 4.0, 500.0])
def test_nothing_better_than_the_pick_leaves_the_margin(card: str, margin_gb: float) -> None:
    margin_bytes = int(margin_gb * GB)
    plans = candidates(catalog.card(card))
    best = pick(catalog.card(card), margin_bytes=margin_bytes)
    fitting = [p for p in plans if p.fit == "fits" and p.margin_bytes >= margin_bytes]
    assert (best is None) == (not fitting)
    for plan in plans:
        why = why_not(plan, best, margin_bytes)
        assert (why == "pick") == (plan == best)
        if plan in fitting:
            assert best is not None and rank(*identity(best)) <= rank(*identity(plan))
        else:
            assert why in ("does not fit", "depends", "below margin")


def test_each_size_has_one_row_that_fits_where_any_does() -> None:
    plans = candidates(T4)
    rows = best_by_size(plans)
    assert [row.asr_model for row in rows] == list(catalog.WHISPER_SIZES)
    for row in rows:
        own = [plan for plan in plans if plan.asr_model == row.asr_model]
        assert plan_leaves(row) == any(map(plan_leaves, own))


# ------------------------------------------------------------------------------------- remedies


@pytest.mark.parametrize("audio_s", [30.0, 600.0, 2400.0])
@pytest.mark.parametrize("card", ["t4", "rtx-3060", "l4"])
def test_what_is_said_to_help_helps(card: str, audio_s: float) -> None:
    request = Request(audio_s=audio_s)
    for plan in candidates(catalog.card(card), request=request):
        found = remedy(plan, request)
        assert found is None or not plan_leaves(plan)
        if found is None or plan_leaves(plan):
            continue
        expanded = "expanded_kv" if "expanded_kv" in found else "auto"
        kept = {"size": plan.asr_model, "attention": expanded}
        if named := re.match(r"fits as (\S+) (\S+)", found):
            kept |= {"backend": named[1], "dtype": named[2]}
            assert pick(catalog.card(card), request, **kept) is not None
        else:
            minutes, seconds = re.findall(r"(?:(\d+) min )?([\d.]+) s", found)[-1]
            longest = replace(request, audio_s=60 * int(minutes or 0) + float(seconds))
            beyond = replace(longest, audio_s=longest.audio_s + catalog.WINDOW_S)
            assert pick(catalog.card(card), longest, **kept) is not None
            assert pick(catalog.card(card), beyond, **kept) is None


def test_a_remedy_names_the_least_change() -> None:
    def said(size: str, backend: str, dtype: str, audio_s: float = 30.0) -> str | None:
        request = Request(audio_s=audio_s)
        kept = {"size": size, "backend": backend, "dtype": dtype}
        (plan,) = candidates(T4, **kept, request=request)
        return remedy(plan, request)

    assert said("large-v3", "transformers", "float16") is None
    assert said("large-v3", "openai-whisper", "float32") == "fits as transformers float16"
    assert "with --attention expanded_kv" in str(said("base", "transformers", "float16", 600.0))
    assert str(said("base", "transformers", "float16", 2400.0)).startswith("fits up to ")


# --------------------------------------------------------------------------- one answer for all


@pytest.mark.parametrize("card", catalog.CARDS)
def test_whoever_is_asked_says_the_same(card: str) -> None:
    """Plan in words and as JSON, the Python API, fit, the server's defaults, the verdict."""
    best = pick(catalog.card(card))
    assert best is not None
    report = hybridlab.plan(card)
    assert report.pick == best
    assert recognizer_name(best) in report.conclusion()
    text = printed("plan", "--card", card)
    assert " ".join(recognizer_name(best).split()) in " ".join(text.split())
    (row,) = [line for line in text.splitlines() if line.endswith(" pick")]
    assert row.split()[0] == best.asr_model

    told = json.loads(printed("plan", "--card", card, "--json"))
    assert set(told) == {"card", "request", "pick", "rows"}
    assert (told["card"], told["request"]["margin_bytes"]) == (card, DEFAULT_MARGIN_BYTES)
    (own,) = [row for row in told["rows"] if row["why_not"] == "pick"]
    assert own.items() <= told["pick"].items()
    assert (own["asr_model"], own["asr_backend"], own["asr_dtype"]) == identity(best)

    fitted = json.loads(printed("fit", best.asr_model, "--card", card, "--json"))
    assert (fitted["asr_backend"], fitted["asr_dtype"]) == identity(best)[1:]
    assert (fitted["fit"], fitted["remedy"]) == ("fits", None)
    assert card in fitted["fits_cards"]
    assert fitted["pick"] == best.as_dict()

    served = Settings.from_mapping({"llm_model": "mini-3b", "device": f"simulated:{card}"})
    assert served.asr == identity(best)

    import pandas as pd

    none = pd.DataFrame({"experiment": [], "llm_model": [], "asr_model": []})
    sentence = answer_sentence(none, None, device="cpu", target=card)
    assert recognizer_name(best) in sentence


@pytest.mark.parametrize("card", catalog.CARDS)
def test_the_line_that_serves_a_pick_is_one_that_the_command_takes(card: str) -> None:
    best = pick(catalog.card(card), attention="expanded_kv")
    assert best is not None
    _, *options = shlex.split(" ".join(serve_options(best)))
    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    settings = Settings.from_mapping(command.make_context("serve", [*options]).params)
    assert settings.asr == identity(best)
    assert (settings.llm_model, settings.llm_dtype) == (best.llm_model, best.llm_dtype)
    assert settings.attention == "expanded_kv"
    # as it is printed: continued lines of the shell, within 80 columns
    text = printed("plan", "--card", card, "--attention", "expanded_kv")
    shown = text[text.index("  hybridlab serve") :].split("\nWER")[0].replace("\\\n", "")
    assert shlex.split(shown)[1:] == ["serve", *options]


def test_the_containers_of_a_card_have_its_pick(project: Path) -> None:
    """The defaults of both compose files are those of a T4; the table has an L4's beside them."""
    table = (project / "docker" / "README.md").read_text(encoding="utf-8")
    for place, card in enumerate(("t4", "l4")):
        best = pick(catalog.card(card))
        assert best is not None
        for variables, values in (
            ("`HYBRIDLAB_ASR_MODEL` `HYBRIDLAB_ASR_BACKEND`", (best.asr_model, best.asr_backend)),
            ("`HYBRIDLAB_ASR_DTYPE` `HYBRIDLAB_LLM_DTYPE`", (best.asr_dtype, best.llm_dtype)),
        ):
            (cells,) = re.findall(rf"^\| {variables} \| (.*) \|$", table, re.MULTILINE)
            assert cells.split(" | ")[place] == " ".join(values)
    best = pick(T4)
    for name in ("single", "separate"):
        text = (project / "docker" / f"compose.{name}.yaml").read_text(encoding="utf-8")
        defaults = dict(re.findall(r"\$\{HYBRIDLAB_(\w+):-([^}]*)\}", text))
        for variable in ("ASR_MODEL", "ASR_BACKEND", "ASR_DTYPE", "LLM_DTYPE"):
            assert defaults[variable] == getattr(best, variable.lower()), (name, variable)


# ------------------------------------------------------------------------------------------ plan


def test_a_row_for_each_size_and_all_of_them_when_asked() -> None:
    def rows(*arguments: str) -> list[list[str]]:
        lines = printed("plan", *arguments).splitlines()
        return [line.split() for line in lines if line.split()[0] in catalog.WHISPERS]

    assert [row[0] for row in rows()] == list(catalog.WHISPER_SIZES)
    assert len(rows("--all")) == len(candidates(T4))
    assert all(row[1:3] == ["7.4", "1x"] for row in rows("--all") if row[0] == "large-v3")


def test_what_has_no_published_wer_is_not_picked_by_one() -> None:
    text = printed("plan", "--asr-model", "pocket-s", "--asr-model", "pocket-m")
    assert "pocket-m (transformers, float16), the largest of what fits" in text
    assert "WER (" not in text


def test_cards_stand_side_by_side() -> None:
    cards = list(catalog.CARDS)
    asked = [argument for card in cards for argument in ("--card", card)]
    text = printed("plan", *asked)
    assert max(map(len, text.splitlines())) <= 80
    told = json.loads(printed("plan", *asked, "--json"))
    assert [one["card"] for one in told] == cards
    starred = re.findall(r"\*(\d+\.\d\d)", text)
    spare = [f"{one['pick']['margin_bytes'] / 2**30:.2f}" for one in told]
    assert sorted(starred) == sorted(spare)  # one of each card, in its size's row
    # once for each, however often it is named
    assert printed("plan", "--card", "l4", "--card", "l4") == printed("plan", "--card", "l4")


def test_where_nothing_leaves_the_margin_it_says_what_would() -> None:
    widest = printed("plan", "--card", "h200", "--all", "--audio-s", "2400", "--batch", "64")
    assert max(map(len, widest.splitlines())) <= 80
    text = printed("plan", "--audio-s", "600")
    assert "No Whisper fits on NVIDIA T4 with a margin of 0.47 GiB." in text
    assert "hybridlab serve" not in text
    assert text.count("--attention expanded_kv") >= 1
    assert json.loads(printed("plan", "--audio-s", "600", "--json"))["pick"] is None
    # one size that was asked for says nothing of the others
    alone = printed("plan", "--audio-s", "600", "--asr-model", "large-v3")
    assert "large-v3 does not fit on NVIDIA T4 with a margin of 0.47 GiB." in alone


def test_a_margin_below_zero_is_refused() -> None:
    for margin_gb in (-1, float("nan")):
        with pytest.raises(ParameterError, match="margin_gb"):
            hybridlab.plan(margin_gb=margin_gb)


# ------------------------------------------------------------------------------------------- fit


@pytest.mark.parametrize("card", catalog.CARDS)
def test_what_fit_names_fits_by_the_plan_and_one_step_more_does_not(card: str) -> None:
    """Audio, batch and beams, of every Whisper, backend and dtype that the card computes in."""
    steps = {
        "longest_audio_s": ("audio_s", catalog.WINDOW_S, catalog.VOXTRAL_MAX_ANSWER_S),
        "largest_batch": ("batch", 1, MOST),
        "most_beams": ("beams", 1, MOST),
    }
    for pair in planner.plan_table(catalog.card(card)):
        whisper = catalog.whisper(pair.asr_model)
        kept = {"backend": pair.asr_backend, "dtype": pair.asr_dtype}
        found = evaluate_fit(catalog.card(card), whisper, MINI, **kept, host_bytes=0)
        planned = partial(planner.plan_pair, catalog.card(card), whisper, MINI, **kept)
        for limit, (name, step, most) in steps.items():
            named = getattr(found, limit)
            at, beyond = (planner.Request(**{name: n}) for n in (named or step, named + step))
            assert plan_leaves(planned(request=at)) == (named > 0), (kept, limit)
            assert named + step > most or not plan_leaves(planned(request=beyond)), (kept, limit)


def test_answers_about_one_pair() -> None:
    medium, found = (
        evaluate_fit(
            T4,
            catalog.whisper(size),
            MINI,
            backend="transformers",
            dtype="float16",
            host_bytes=int(12.7e9),
        )
        for size in ("medium", "large-v3")
    )
    assert "rtx-3060" in found.fits_not_cards
    assert {"t4", "l4"} <= set(found.fits_cards)
    # beside large-v3 it is Whisper's own windows that take what is left
    assert found.longest_audio_s == found.longest_audio_expanded_kv_s
    assert medium.longest_audio_s < medium.longest_audio_expanded_kv_s
    assert found.largest_batch >= 1
    assert found.most_beams >= 5
    assert dict(found.facts())["verdict"].startswith("fits: ")
    assert json.dumps(found.as_dict())


def test_a_backend_that_is_left_open_is_the_one_of_the_plan() -> None:
    for size in catalog.WHISPER_SIZES:
        found = evaluate_fit(T4, catalog.whisper(size), MINI, host_bytes=0).plan
        assert found in best_by_size(candidates(T4))
    one = evaluate_fit(T4, catalog.whisper("base"), MINI, dtype="int8", host_bytes=0).plan
    assert identity(one) == ("base", "faster-whisper", "int8")
    with pytest.raises(ParameterError, match="NVIDIA T4, which computes in float32, float16"):
        evaluate_fit(T4, catalog.whisper("base"), MINI, dtype="bfloat16", host_bytes=0)
