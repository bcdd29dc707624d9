"""`docs/accuracy.md`: what `hybridlab estimate` predicts beside what others measured and published:
`python -m tools.accuracy` writes it, a test checks it."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from hybridlab import catalog
from hybridlab.planner import Estimate, Request
from hybridlab.planner.model_estimate import QUANTITIES, estimate_model
from hybridlab.units import GB, format_percent

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
BENCHMARKS = ROOT / "outputs" / "reference" / "benchmarks"
PUBLISHED = ROOT / "outputs" / "reference" / "public_measurements.csv"
HEAD = """# How right are the predictions?

`hybridlab estimate` predicts what one model takes by itself; `plan` and `fit` put two of them on a
card by the same formulas. Each term is derived: dimensions of the released models, tensors that the
libraries keep alive together (`hybridlab/planner/activations.py`), torch's choice of an attention
kernel (`hybridlab/catalog/kernels.py`), and what a caching allocator holds beside them, measured on
simulated cards (`hybridlab/planner/allocator.py`). One constant has no derivation: what CTranslate2
holds for itself, 0.5 to 0.85 GB, was read off devices, of which H15a, H19 and H20 are some, so that
those rows check its range and are no independent witness. No other is fitted to a row of this page.

## Beside what others published

GB are 10⁹ bytes; a range is the prediction's lowest and highest. What a driver counts
(`device peak`) holds the context and what a library keeps for itself as well, which are known as
ranges only. Where a reading names no number of tokens, 100 a window are assumed of speech.
"""
FOOT = """
## Beside a simulated card

Tests ask torch's own allocator and kernels (`docs/simulated-card.md`) for the same figures: each
Whisper beside Voxtral-Mini-3B at load, idle and at a request, allocated bytes within 16 MiB (32 and
96 MiB with openai-whisper in float16 and float32) and reserved bytes inside the predicted range
(`tests/simulation/test_full_size_pair.py`); the kernel for every dtype, mask and kind of heads on
compute capability 7.5 to 9.0, and the bytes of the math kernel within 0.5 %
(`tests/simulation/test_attention.py`); the tensors of each phase on true shapes
(`tests/planner/test_live_tensors.py`).

`python -m benchmarks.planner_accuracy --card t4` asks for requests of 30 s to 10 min, alone and
four at once, of every size, backend and dtype: expected allocated peaks count as met within 3 % or
64 MiB.
"""


@dataclass(frozen=True)
class Row:
    """One published reading and its prediction, in bytes."""

    id: str
    published: str
    quantity: str
    backend: str
    measured_bytes: int
    predicted: Estimate
    source: str
    note: str

    @property
    def error(self) -> float:
        """Of the expected bytes, as a share of the published ones."""
        return self.predicted.expected / self.measured_bytes - 1


def rows() -> list[Row]:
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return [_row(fields) for fields in csv.DictReader(file)]


def _row(fields: dict[str, str]) -> Row:
    batch, beams, new_tokens = (int(fields[name]) for name in ("batch", "beams", "new_tokens"))
    assert fields["quantity"] in QUANTITIES, fields["quantity"]
    figures = estimate_model(
        fields["model"],
        catalog.card(fields["card"]) if fields["card"] else catalog.card("t4"),
        Request(batch=batch, beams=beams, new_tokens=new_tokens),
        backend=fields["backend"],
        dtype=fields["dtype"],
    )
    same = ("id", "published", "quantity", "backend", "source", "note")
    return Row(
        **{name: fields[name] for name in same},
        measured_bytes=int(fields["measured_bytes"]),
        predicted=figures[fields["quantity"]],
    )


def page() -> str:
    lines = [
        "| published | quantity | GB | predicted | range | error | note |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        low, expected, high = (
            f"{size / GB:.2f}"
            for size in (row.predicted.low, row.predicted.expected, row.predicted.high)
        )
        quantity = row.quantity.removesuffix("_bytes").replace("_", " ")
        reading = f"{row.published}. {row.source} ({row.id})"
        spread = low if low == high else f"{low} to {high}"
        lines.append(
            f"| {reading} | {quantity} | {row.measured_bytes / GB:.2f} | {expected} | {spread} | "
            f"{format_percent(row.error, 1, sign='+')} | {row.note} |"
        )
    return HEAD + "\n" + "\n".join(lines) + "\n" + FOOT + _simulated()


def _simulated() -> str:
    """A line for each published run of the benchmark."""
    files = sorted(BENCHMARKS.glob("planner-accuracy-*.json"))
    if not files:
        return ""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    names = list(runs[0]["summary"])
    head = [f"| card | {' | '.join(name.replace('_', ' ') for name in names)} |"]
    head += ["|---" * (len(names) + 1) + "|"]
    body = [
        f"| {run['card']} | {' | '.join(str(run['summary'][name]) for name in names)} |"
        for run in runs
    ]
    return "\n" + "\n".join(head + body) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
