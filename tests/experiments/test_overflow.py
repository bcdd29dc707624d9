"""Half precision that overflows is seen at the first request, told, and never an empty text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridlab.audio import load_clips
from hybridlab.catalog import DECODINGS
from hybridlab.config.params import SetupParams
from hybridlab.devices import CpuDevice
from hybridlab.experiments.plans import quality, setup
from hybridlab.models import ModelSpec, make_llm
from hybridlab.reporting import key_findings, labels, tables
from tests.loud import loud_voxtral
from tests.pages import load, with_pictures
from tests.sessions import VOXTRAL, assert_ok, open_session

SENTENCE = "float16 overflows in Voxtral pocket"


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """The pocket Voxtral with a head that says the same so much louder, in float16."""
    folder = loud_voxtral(tmp_path_factory.mktemp("loud") / "voxtral")
    return replace(VOXTRAL, weights="local", path=str(folder), dtype="float16")


@pytest.mark.parametrize("decoding", DECODINGS)
def test_the_first_logits_are_looked_at_once(loud: ModelSpec, decoding: Any) -> None:
    clip = min(load_clips(), key=lambda clip: clip.audio_s)
    for dtype, finite in (("float32", True), ("float16", False)):
        llm = make_llm(replace(loud, dtype=dtype, decoding=decoding), CpuDevice())
        llm.load()
        assert llm.logits_finite is None
        head = llm.module().lm_head  # type: ignore[union-attr]
        hooks = len(head._forward_hooks)
        (said,) = llm.transcribe([clip.samples()])
        assert llm.logits_finite is finite
        assert not finite or said.text == clip.text
        assert len(head._forward_hooks) == hooks - 1  # type: ignore[arg-type]


def test_random_weights_are_not_looked_at() -> None:
    llm = make_llm(replace(VOXTRAL, weights="random"), CpuDevice())
    llm.load()
    llm.answer([load_clips()[0].samples()], ["Who?"], max_new_tokens=1)
    assert llm.logits_finite is None


@pytest.mark.slow
@pytest.mark.usefixtures("case_server")
def test_a_case_whose_numbers_overflow_has_no_texts_and_says_why(
    tmp_path: Path, loud: ModelSpec
) -> None:
    session = open_session(tmp_path, SetupParams)
    assert session.runner.run(session.case("setup", warmup=0))["llm_logits_finite"] is True
    assert SENTENCE not in " ".join(setup.learnt(session))
    rows = [
        session.runner.run(session.case("setup", llm=loud, warmup=0)),
        session.runner.run(
            session.case("setup", llm=loud, strategy="parallel", variant="processes")
        ),
        session.runner.run(replace(quality._case(session, "llm", None), llm=loud)),
    ]
    assert_ok(rows, 3)
    assert [row["llm_logits_finite"] for row in rows] == [False] * 3
    trials = session.table("trials").set_index("case_id")
    for row in rows:
        own = trials.loc[[row["case_id"]]]
        assert own["answer"].isna().all() and own["answer_finish"].isna().all()
        assert own["transcript"].isna().all() == (row["asr_model"] is None)
    cases = session.table("cases")
    assert tables.qualities(session.table("trials"), cases) == []
    (sentence,) = [one for one in key_findings.unmeasured(cases) if SENTENCE in one]
    assert "in 3 cases" in sentence and "choose llm_dtype bfloat16 or float32" in sentence
    assert sentence in setup.learnt(session)
    session.close()
    page = load(with_pictures(session.part.run_dir))
    assert labels.capital(sentence) in page.text
