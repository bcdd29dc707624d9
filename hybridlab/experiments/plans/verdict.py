"""07: what a run says as a whole, read from its rows; nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from hybridlab.analysis.arms import failures
from hybridlab.analysis.claims.claims_file import load_claims
from hybridlab.analysis.recommendation import Recommendation, Requirements, recommend
from hybridlab.analysis.verdict import TARGET, judge, write_verdict
from hybridlab.config.params import VerdictParams
from hybridlab.devices import card_of
from hybridlab.experiments.session import Session
from hybridlab.reporting import labels
from hybridlab.reporting.labels import EMPTY
from hybridlab.results.reader import read_rows, run_table
from hybridlab.results.schema import TABLES


@dataclass(frozen=True)
class Conclusion:
    """A run's tables and what follows from them."""

    tables: Mapping[str, pd.DataFrame]
    answer: str
    recommendation: Recommendation | None
    claims: list[dict[str, Any]]
    options: list[dict[str, str]]

    @property
    def findings(self) -> list[str]:
        """The answer, how the claims fared, and why the answer is so."""
        verdicts = pd.Series([row["verdict"] for row in self.claims]).value_counts()
        counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
        sentences = [self.answer, f"Of {len(self.claims)} claims: {counts}."]
        if self.recommendation is not None:
            sentences += [
                f"{labels.capital(self.recommendation.why)}.",
                *self.recommendation.notes,
            ]
        else:
            barred = failures(self.tables["cases"], self.tables["trials"])
            sentences += [f"Barred: {arm}, {why}." for arm, why in barred.items()]
        return sentences

    @property
    def goals(self) -> pd.DataFrame:
        """The best arm for each goal, and the runner-up."""
        goals = self.recommendation.goals if self.recommendation else ()
        return pd.DataFrame(
            [
                {
                    "goal": goal.goal,
                    "pick": goal.arm,
                    "its figure": goal.figure,
                    "how sure": goal.how_sure,
                    "runner-up": goal.runner_up or EMPTY,
                    "the runner-up's": goal.runner_up_figure or EMPTY,
                }
                for goal in goals
            ],
            columns=["goal", "pick", "its figure", "how sure", "runner-up", "the runner-up's"],
        )


def conclude(session: Session, run_dir: Path) -> Conclusion:
    """Judge the claims, recommend, write `verdict.json` and the rows of `claims`."""
    params = cast(VerdictParams, session.params)
    tables = {name: run_table(run_dir, name) for name in TABLES}
    if tables["cases"].empty:
        print(  # noqa: T201 - else the page looks as if nothing could be measured
            f"note: {run_dir} holds nothing measured; run the notebooks 02 and 04 first, or name a "
            "run's folder in run"
        )
    here = card_of(session.device)
    card = here.name if here else None
    target = session.card.name if session.card else TARGET
    claims = judge(
        load_claims(Path(params.claims) if params.claims else None),
        tables,
        device=session.device.name,
        card=card,
    )
    if not read_rows(session.part.folder / "claims.jsonl"):
        for row in claims:
            session.part.writer.append("claims", {"experiment": "verdict", **row})
    constraints = Requirements.asked(
        min_margin_bytes=params.min_margin_bytes,
        max_p95_s=params.max_p95_s,
        max_wer=params.max_wer,
    )
    cases = tables["cases"]
    found = recommend(cases, tables["trials"], constraints)
    written = write_verdict(
        run_dir, cases, found, device=session.device.name, card=card, target=target
    )
    return Conclusion(
        tables=tables,
        answer=written["answer"],
        recommendation=found,
        claims=claims,
        options=[_readable(row) for row in written["options"]],
    )


def _readable(option: Mapping[str, Any]) -> dict[str, str]:
    """A row of the options as people read it."""
    on = option["measured_on"] if option["measured_peak_bytes"] else ""
    return {
        "option": f"{option['option']} ({option['asr_model']})",
        "backend": option["asr_backend"],
        "dtype": option["asr_dtype"],
        f"on {option['card']}": "fits" if option["fits"] else "does not fit",
        "predicted peak GiB": labels.gib(option["total_bytes"]),
        "of the card %": f"{option['utilization'] * 100:.0f}",
        "margin GiB": labels.gib(option["margin_bytes"]),
        "measured GiB": labels.gib(option["measured_peak_bytes"] or None),
        "measured on": f"{on} beside {option['measured_llm_model']}" if on else EMPTY,
    }
