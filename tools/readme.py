"""The generated tables of the README and of pages in docs/: `python -m tools.readme` writes them, a
test checks them."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridlab import MEASUREMENT_VERSION, catalog
from hybridlab.analysis.pick import pick, plan_leaves, recognizer_name
from hybridlab.analysis.plan_report import plan, published
from hybridlab.config.params import NOTEBOOKS
from hybridlab.config.preset_files import comment, presets
from hybridlab.units import format_bytes, format_percent
from tools import repository

COLAB = "https://colab.research.google.com"


def notebooks_table(project: Path) -> str:
    """Number, question and Colab badge of each notebook, read from its first cell."""
    rows = []
    for name in ("start", *NOTEBOOKS):
        book = json.loads((project / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        source = "".join(book["cells"][0]["source"])
        question = re.findall(r"^\*\*(.+)\*\*$", source, flags=re.MULTILINE)[-1]
        badge = (
            f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
            f"({COLAB}/github/{repository.named(project)}/blob/main/notebooks/{name}.ipynb)"
        )
        rows.append((f"[`{name}`](notebooks/{name}.ipynb)", question, badge))
    return _table(("notebook", "question", "run it"), rows)


def presets_table(project: Path) -> str:
    """Each preset and the comment that opens its file; not those of a reader's own notebooks."""
    rows = []
    for name in presets(project / "params"):
        path = project / "params" / f"{name}.yaml"
        if (project / "notebooks" / f"{name}.ipynb").is_file():
            continue
        rows.append((f"[`{name}`](../params/{path.name})", comment(name, path.parent)))
    return _table(("preset", "what it runs"), rows)


def plan_table(_: Path) -> str:
    """What the planner predicts beside Voxtral-Mini-3B on a T4: the best combination of each size,
    and openai-whisper as it is by default."""
    report, default = plan("t4"), catalog.backend("openai-whisper")
    rows = [
        (
            pair.asr_model,
            *published(pair.asr_model),
            pair.asr_backend,
            pair.asr_dtype,
            *map(format_bytes, (pair.load_peak_bytes, pair.request_peak_bytes)),
            format_percent(pair.utilization),
            f"fits, {why}" if plan_leaves(pair) and why != "pick" else f"**{why}**",
        )
        for pair, why in ((pair, report.why_not(pair)) for pair in report.pairs)
        if pair in report.by_size
        or (pair.asr_backend, pair.asr_dtype) == (default.name, default.default_dtype)
    ]
    header = ("Whisper", "WER %", "speed", "backend", "kept in", "load peak", "request peak")
    return _table((*header, "of the card", "verdict"), rows)


def cards_table(_: Path) -> str:
    """The catalog's cards with the bytes that CUDA reports as usable, and the pick for each."""
    rows = [
        (
            f"`{card.name}`",
            card.title,
            format_bytes(card.usable_bytes),
            f"{card.memory_bandwidth / 1e9:.0f} GB/s",
            ", ".join(card.native_dtypes),
            recognizer_name(best) if (best := pick(card)) else "none",
        )
        for card in catalog.CARDS.values()
    ]
    header = ("card", "name", "usable", "memory bandwidth", "native dtypes", "the pick (predicted)")
    return _table(header, rows)


def strategies_table(_: Path) -> str:
    """Every strategy with its variants, and what bounds it."""
    rows = [
        (f"`{name}`", ", ".join(f"`{variant.name}`" for variant in facts), facts.bound)
        for name, facts in catalog.STRATEGIES.items()
    ]
    return _table(("strategy", "variants", "what bounds it"), rows)


def measured_table(project: Path) -> str:
    """Full-size pairs measured on a CPU, beside what the planner said: from the published run."""
    import pandas as pd

    cases = pd.read_parquet(project / "outputs" / "reference" / "full-cpu" / "cases.parquet")
    rows = []
    for case in cases[cases["experiment"] == "co_residency"].to_dict("records"):
        name = (str(case["asr_model"]), str(case["asr_dtype"]))
        if case["status"] != "ok":
            rows.append((*name, "–", "–", "–", "–", str(case["reason"])))
            continue
        rows.append(
            (
                *name,
                format_bytes(case["idle_bytes"]),
                format_bytes(case["request_peak_bytes"]),
                *_above_weights(case),
            )
        )
    header = ("Whisper", "kept in", "idle", "request peak", *ABOVE_WEIGHTS)
    return _table(header, rows) + _version_words(project, "full-cpu")


def _version_words(project: Path, run: str) -> str:
    """By which version of the method a published run was measured."""
    path = project / "outputs" / "reference" / run / "manifest.json"
    version = json.loads(path.read_text(encoding="utf-8"))["measurement_version"]
    now = MEASUREMENT_VERSION
    return f"\n\nMeasured by version {version} of the [method](method.md); the code's is {now}."


#: Headers of `_above_weights`.
ABOVE_WEIGHTS = ("of it above weights", "predicted", "error of that")


def _above_weights(case: Mapping[Any, Any]) -> tuple[str, str, str]:
    """The part of the peak that is predicted: without the process as it was before any model, which
    is measured, and without the weights, which are counted."""
    known = [case[name] for name in ("process_baseline_bytes", *WEIGHTS) if case[name] > 0]
    measured, predicted = (
        case[name] - sum(known) for name in ("request_peak_bytes", "predicted_bytes")
    )
    return (
        format_bytes(measured),
        format_bytes(predicted),
        format_percent(measured / predicted - 1, sign="+"),
    )


WEIGHTS = ("llm_weights_bytes", "asr_weights_bytes")


def simulated_table(project: Path) -> str:
    """Full-size pairs on a simulated T4 beside what is predicted: from the published run."""
    import pandas as pd

    cases = pd.read_parquet(project / "outputs" / "reference" / "t4-simulated" / "cases.parquet")
    rows = [
        (
            str(case["asr_model"]),
            *(
                f"{format_bytes(case[f'{moment}_bytes'])} / "
                f"{format_bytes(case[f'{moment}_reserved_bytes'])}"
                for moment in ("load_peak", "idle", "request_peak")
            ),
            *_above_weights(case),
            format_bytes(case["margin_bytes"]),
        )
        for case in cases[cases["experiment"] == "co_residency"].to_dict("records")
    ]
    header = ("Whisper", "load peak", "idle", "request peak", *ABOVE_WEIGHTS, "to spare")
    return _table(header, rows) + _version_words(project, "t4-simulated")


def peers_table(project: Path) -> str:
    """The ways of sharing beside what people run today: from the published benchmark."""
    path = project / "outputs" / "reference" / "benchmarks" / "peers.json"
    rows = []
    for name, arm in json.loads(path.read_text(encoding="utf-8"))["arms"].items():
        if arm["status"] != "ok":
            rows.append((f"`{name}`", arm["status"], "–", "–"))
            continue
        low, high = arm["throughput_over_original_interval"]
        rows.append(
            (
                f"`{name}`",
                f"{arm['median_latency_s'] * 1e3:.0f} ms",
                f"{arm['median_rps']:.1f}",
                f"{arm['throughput_over_original']:.2f} ({low:.2f} to {high:.2f})",
            )
        )
    return _table(("way", "median latency", "requests/s", "throughput over `original`"), rows)


def endurance_table(project: Path) -> str:
    """What became of requests under each hardship, and what the benchmark found fault with: as it
    was published."""
    path = project / "outputs" / "reference" / "benchmarks" / "endurance.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        (
            told,
            *(f"{found[name][fate]:,}" for fate in ("right", "refused", "wrong", "lost")),
            _endured(name, found[name]),
        )
        for name, told in ENDURED.items()
    ]
    header = ("under load", "answered right", "refused", "wrong", "lost", "and")
    faults = "".join(f"\n**Not passed:** {line}" for line in found["failures"])
    return _table(header, rows) + ("\n" + faults if faults else "")


ENDURED = {
    "soak": "the knee rate for long",
    "burst": "ten times the knee rate",
    "slow": "clients that send or read byte by byte",
    "vanishing": "clients that vanish",
    "hostile": "uploads that are no audio, or far too much",
    "kill asr": "SIGKILL to Whisper's worker",
    "kill llm": "SIGKILL to Voxtral's worker",
    "kill decoder": "SIGKILL to the decoder",
    "sigterm": "SIGTERM to the server",
}


def _endured(name: str, part: dict[str, Any]) -> str:
    """What else there is to say of a hardship."""
    if name == "soak":
        held = {name: own["trend"] for name, own in part["held"].items() if own["trend"] != "flat"}
        told = (f"memory of {name} {trend}" for name, trend in held.items())
        memory = ", ".join(told) or "memory of every process flat"
        p95_s = [part[fifth]["p95_s"] for fifth in ("first_fifth", "last_fifth")]
        return (
            f"{part['seconds'] / 60:.3g} min at {part['rate_rps']:.1f} /s, {memory}, p95 "
            f"{p95_s[0]:.2f} s in the first fifth and {p95_s[1]:.2f} s in the last"
        )
    if name == "burst":
        return f"usual latency again {part['back_to_normal_s']:.1f} s after the last answer"
    if name == "sigterm":
        return f"exit code {part['exit_code']} after {part['ended_after_s']:.1f} s"
    if name.startswith("kill"):
        return f"answers again after {part['answers_again_s']:.1f} s"
    ratio = f"p95 of the others {part['p95_ratio']:.2f} times"
    if name == "hostile":
        return f"{part['sent']} of them, as many as usual requests, {ratio} the usual"
    return f"{sum(part['strangers'].values())} of them, {ratio} that beside as many prompt ones"


def serve_table(project: Path) -> str:
    """What the server adds to the strategy that it serves: as it was published."""
    path = project / "outputs" / "reference" / "benchmarks" / "serve.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    added, held = found["overhead"], found["saturation"]
    alone_ms, low_ms, high_ms = (
        1e3 * value for value in (added["in_process_median_s"], *added["added_interval_s"])
    )
    rows = [
        ("ready after", f"{max(found['ready_s']):.1f} s", ""),
        (
            "HTTP adds to a request",
            f"{1e3 * added['added_s']:.1f} ms ({low_ms:.1f} to {high_ms:.1f})",
            f"to {alone_ms:.0f} ms in one process",
        ),
        (
            "throughput with many clients",
            f"{held['ratio']:.2f} ({_range(held['ratio_interval'])})",
            f"of {statistics.median(held['in_process_rps']):.1f} requests/s in one process",
        ),
    ]
    for backend, name in SERVED_BACKENDS.items():
        gain = found[name]
        rows.append(
            (
                f"micro-batches, {backend}",
                f"{gain['gain']:.2f} ({_range(gain['gain_interval'])})",
                f"times {statistics.median(gain['unbatched_rps']):.1f} short clips/s one by one",
            )
        )
    return _table(("with the pocket pair", "measured", "beside"), rows)


SERVED_BACKENDS = {
    "openai-whisper": "micro_batches",
    "transformers": "micro_batches_transformers",
}


def _range(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{low:.2f} to {high:.2f}"


#: Each section stands in one of these.
PAGES = ("README.md", "docs/notebooks.md", "docs/results.md")
SECTIONS: dict[str, Callable[[Path], str]] = {
    "notebooks": notebooks_table,
    "presets": presets_table,
    "plan": plan_table,
    "simulated": simulated_table,
    "measured": measured_table,
    "cards": cards_table,
    "strategies": strategies_table,
    "peers": peers_table,
    "serve": serve_table,
    "endurance": endurance_table,
}


def sections_of(text: str) -> list[str]:
    """Names of a page's generated sections, in their order."""
    return re.findall(r"^<!-- begin ([a-z]+) -->$", text, flags=re.MULTILINE)


def render(text: str, project: Path) -> str:
    """A page's text with its generated sections renewed."""
    for name in sections_of(text):
        before, _, rest = text.partition(f"<!-- begin {name} -->\n")
        after = rest[rest.index(f"<!-- end {name} -->") :]
        text = f"{before}<!-- begin {name} -->\n{SECTIONS[name](project)}\n{after}"
    return text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    project = Path(__file__).resolve().parent.parent
    for name in PAGES:
        page = project / name
        page.write_text(render(page.read_text(encoding="utf-8"), project), encoding="utf-8")


if __name__ == "__main__":
    main()
