"""Tables, and the sentences and figures that follow from them, from rows whose answer is known."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from hybridlab.reporting import answers, figures, key_findings, labels, tables
from hybridlab.units import GB, MIB
from tests.analysis.test_verdict import Rows
from tests.reporting.figures.drawn import words_of
from tests.reporting.frames import frame, race

# -------------------------------------------------------------------------------------- slowdown

SPAN = "request_id phase end_s"


def slowdown(*spans: tuple[str, str, float], variant: str = "threads", **case: Any) -> pd.DataFrame:
    alone = [(f"clip-{i}", "decode", 9.0 if i == 0 else 1.0) for i in range(4)]
    about = {"role": "asr", "start_s": 0.0}
    return tables.slowdown_table(
        pd.concat(
            [
                frame(SPAN, *alone, case_id="alone", **about),
                frame(SPAN, *spans, case_id="s", **about),
            ]
        ),
        pd.concat(
            [
                race("case_id", ("alone",), n_trials=4).assign(experiment="reference"),
                race("case_id strategy variant", ("s", "s", variant), n_trials=4).assign(**case),
            ]
        ).assign(asr_backend="openai-whisper"),
    )


def test_each_request_is_held_against_itself_alone() -> None:
    at_work = {"encode": 1.0, "decode": 0.5, "copy-in": 7.0}
    spans = [(f"clip-{i}", phase, s) for i in range(4) for phase, s in at_work.items()]
    row = slowdown(*spans, ("clip-0-first", "decode", 99.0)).iloc[0]
    # alone, the first request is cold: 9 s of it are no measure; copying in is not work
    assert (row["at work s"], row["n"]) == ("1.5", 1)  # one case has no interval
    assert row["times as long as alone"] == "1.5"


def test_requests_of_a_batch_share_their_call() -> None:
    row = slowdown(("clip-0", "decode", 2.0), variant="batched").iloc[0]
    assert (row["at work s"], row["times as long as alone"]) == ("0.5", "0.5")


@pytest.mark.parametrize("rows", [pd.DataFrame(), pd.DataFrame({"experiment": []})])
def test_without_rows_tables_are_empty(rows: pd.DataFrame) -> None:
    none = pd.DataFrame()
    assert tables.slowdown_table(none, rows).empty
    assert tables.containers_table(none, rows).empty
    assert tables.memory_limits_table(rows, none).empty
    assert tables.least_headrooms(none, rows).empty
    assert tables.swap_table(none, rows).empty
    assert tables.latency_table(none, rows).empty
    assert key_findings.memory_limits(rows, none) == key_findings.attention(rows, none) == []
    assert answers.limits(rows, none, none) == answers.beside(rows) == answers.baseline(rows) == []
    assert answers.sequential(rows, none) == answers.parallel(rows, none) == []
    assert answers.swapping(rows, none, none) == []
    assert figures.survival(none, rows).axes == []


# ------------------------------------------------------------------------------------ containers

SERVED = race(
    "case_id variant servers server_overhead_bytes gateway_bytes",
    ("one", "single-container", 1, 500 * MIB, None),
    ("two", "separate-containers", 2, 900 * MIB, 50 * MIB),
    strategy="parallel",
)
ANSWERED = race(
    "case_id variant latency_s http_overhead_s gateway_s",
    *[("one", "single-container", 0.1, 0.01, None)] * 3,
    *[("two", "separate-containers", 0.2, 0.05, 0.01)] * 3,
    strategy="parallel",
    is_first_request=False,
)


def test_http_the_second_context_and_the_gateway_are_told_apart() -> None:
    shown = ["servers", "beside weights MiB", "second context MiB", "of latency", "gateway MiB"]
    one, two = tables.containers_table(ANSWERED, SERVED)[shown].itertuples(index=False, name=None)
    assert one == (1, "500", "–", "10.0 %", "–")
    assert two == (2, "900", "400", "30.0 %", "50")
    table = tables.containers_table(ANSWERED, SERVED)
    assert [cell.split()[0] for cell in table["HTTP ms"]] == ["10", "50"]
    assert [cell.split()[0] for cell in table["gateway ms"]] == ["–", "10"]
    assert key_findings.containers(ANSWERED.iloc[2:4], SERVED) == [
        "parallel/single-container: HTTP adds 10 ms, 10.0 % of a request; beside weights 500 MiB "
        "are held.",
        "parallel/separate-containers: HTTP adds 50 ms and a gateway 10 ms, 30.0 % of a request; "
        "beside weights 900 MiB are held.",
    ]


@pytest.mark.parametrize(
    ("cases", "held"),
    [
        (SERVED.iloc[1:], [("900", "–")]),  # how much one server holds is not known
        (SERVED.assign(server_overhead_bytes=None), [("–", "–"), ("–", "–")]),
        (SERVED.drop(columns="servers"), []),
    ],
)
def test_a_second_context_is_known_beside_one_alone(
    cases: pd.DataFrame, held: list[tuple[str, str]]
) -> None:
    table = tables.containers_table(ANSWERED, cases)
    columns = (table.get(f"{name} MiB", []) for name in ("beside weights", "second context"))
    assert list(zip(*columns, strict=True)) == held


# ----------------------------------------------------------------------------------------- swaps

SWAP_CASES = race(
    "case_id strategy variant link_bytes_per_s",
    ("p", "sequential", "plain", None),
    ("w", "swapping", "reload-cached", None),
    ("x", "swapping", "single-buffer", 10 * GB),
)
SWAPS = frame(
    "case_id phase end_s bytes request_id",
    ("p", "encode", 0.2, None, "a"),
    ("p", "load", 0.9, None, None),
    ("w", "load", 0.8, None, "a"),
    ("w", "release", 0.2, 1e9, "a"),
    ("w", "encode", 0.3, None, "a"),
    ("x", "host", 0.5, 1e9, None),
    ("x", "allocate", 0.05, 1e9, "a"),
    ("x", "copy-in", 0.125, 1e9, "a"),
    ("x", "release", 0.025, 1e9, "a"),
    ("x", "copy-in", 9.0, 1e9, "a-first"),
    role="asr",
    start_s=0.0,
)


def test_a_copy_is_held_against_the_links_own_speed() -> None:
    table = tables.swap_table(SWAPS, SWAP_CASES).set_index(["variant", "stage"])
    copy = table.loc[("single-buffer", "copy-in")]
    assert copy[["MB", "GB/s", "of the link"]].tolist() == ["1,000.0", "8", "80.0 %"]
    assert copy["n"] == 1  # the first request is left out
    assert table.loc[("single-buffer", "host"), "when"] == "once"
    assert table.loc[("single-buffer", "host"), "of the link"] == labels.EMPTY
    assert table.loc[("plain", "first use"), "median s"] == "0.2"
    assert ("plain", "load") not in table.index  # the control does not swap
    assert table.loc[("reload-cached", "first use"), "median s"] == "0.3"


def test_what_is_paid_once_is_no_part_of_a_swap() -> None:
    seconds = tables.swap_seconds(SWAPS, SWAP_CASES).sum(axis=1)
    assert seconds.to_dict() == pytest.approx({"single-buffer": 0.2, "reload-cached": 1.0})
    finding = "single-buffer takes 200 ms to swap, reload-cached 1 s: 5 times as long"
    assert key_findings.swapping(SWAPS, SWAP_CASES) == [
        "The copy in of single-buffer reaches 80.0 % of the link's own speed.",
    ]
    assert " ".join(figures.swap_stages(SWAPS, SWAP_CASES).get_suptitle().split()) == finding


# --------------------------------------------------------------------------------- memory limits

LIMIT_CASES = frame(
    "case_id limit_kind strategy limit_found limit_hit served_by_model fallbacks",
    ("s", "headroom", "sequential", None, None, None, None),
    ("w", "headroom", "swapping", None, None, None, None),
    ("b", "batch", "sequential", 8.0, True, None, None),
    ("l", "fallback", "sequential", None, None, "base", 1),
    experiment="memory_limits",
    status="ok",
)


def probes(sequential: tuple[int, ...], swapping: tuple[int, ...]) -> pd.DataFrame:
    """The least MiB with which each squeezed request survives, among other probes."""
    squeezed = [
        (case, "headroom", repeat, room * MIB, room >= least, "llm prefill")
        for case, rooms in (("s", sequential), ("w", swapping))
        for repeat, least in enumerate(rooms)
        for room in (least // 2, least, 2 * least)
    ]
    found = frame(
        "case_id limit_kind repeat value succeeded phase",
        *squeezed,
        *[("b", "batch", 0, batch, batch <= 8, "llm encode") for batch in (4, 8, 16)],
        ("l", "fallback", None, None, False, "load"),
    )
    return found.assign(phase=found["phase"].where(~found["succeeded"]))


PROBES = probes((20, 20, 20), (90, 90, 90))


def test_limits_name_what_was_found_and_where_it_fails() -> None:
    rooms = tables.least_headrooms(PROBES, LIMIT_CASES).groupby("strategy")["headroom_bytes"]
    assert rooms.unique().map(list).to_dict() == {"sequential": [20 * MIB], "swapping": [90 * MIB]}
    table = tables.memory_limits_table(LIMIT_CASES, PROBES).set_index(["asked", "strategy"])
    assert table.loc[("largest batch", "sequential"), "found"] == "8"
    assert table.loc[("largest batch", "sequential"), "fails in"] == "llm encode"
    assert table.loc[("fallback", "sequential"), "found"] == "base after 1 step down"
    assert table.loc[("headroom", "swapping"), "found"].startswith("90 ")
    sentences = key_findings.memory_limits(LIMIT_CASES, PROBES)
    assert "The fallback chain ended on base after 1 step down (sequential, 1 probe)." in sentences
    assert any(sentence.startswith("8 of 22 probes ran out") for sentence in sentences)


def test_one_case_of_each_is_no_order() -> None:
    figure = figures.survival(PROBES, LIMIT_CASES)
    assert " ".join(figure.get_suptitle().split()) == (
        "Swapping needs 90 MiB above the resident pair in the median, sequential 20 MiB; 1 case "
        "each, too few to tell"
    )
    assert "n = 6 requests" in words_of(figure)


# ------------------------------------------------------------------------------------- attention


def test_kernels_are_compared_with_auto() -> None:
    cases = frame(
        "case_id attention request_bytes status reason",
        ("a", "auto", 100 * MIB, "ok", ""),
        ("m", "math", 500 * MIB, "ok", ""),
        ("e", "efficient", None, "skipped", "no such kernel"),
        experiment="attention",
        audio_s=120.0,
        idle_bytes=100 * MIB,
        predicted_bytes=140 * MIB,
    )
    served = frame("case_id answer_tokens", ("a", [1, 2]), ("m", [1, 3]), latency_s=0.5)
    assert key_findings.attention(cases, served)[:2] == [
        "On 120 s of audio auto attention takes least above rest, 100 MiB, math most, 500 MiB.",
        "Other words than under auto: math.",
    ]
    table = tables.attention_table(cases, served).set_index("attention")
    assert table.loc["math", "request MiB"] == "500"
    assert table.loc["auto", "predicted MiB"] == "40"
    assert table["same tokens"].tolist()[:2] == ["yes", "no"]
    assert table.loc["efficient", "status"] == "no such kernel"


def test_the_plan_for_a_t4_shows_the_trap() -> None:
    longest = tables.attention_plan("t4").set_index("attention")["30 min, predicted GiB"]
    assert float(longest["math"]) > 100
    assert float(longest["expanded_kv"]) < 5


# ----------------------------------------------------------------------------- sentences of a race


def test_a_race_is_told_by_its_fastest_arm_its_ratios_and_its_texts() -> None:
    rows = Rows()
    rows.arm("sequential", "plain", "05", requests=[1.0] * 5)

    def told() -> list[str]:
        return key_findings.strategy_comparison(rows.tables["cases"], rows.tables["trials"])

    # each round is 1 % slower than the one before
    assert told() == [
        "sequential/plain takes 1.02 s per request.",
        "All 25 texts are what the models say alone.",
    ]
    rows.arm("parallel", "threads", "05", factor=0.5, requests=[1.0] * 5)
    assert told()[:2] == [
        "parallel/threads is fastest: 510 ms per request, 2 times as fast as sequential/plain.",
        "Times as long as sequential/plain in the same rounds: parallel/threads 0.50 [0.50, 0.50].",
    ]
    rows.arm("parallel", "processes", "05", factor=0.1, output_matches_reference=False)
    assert told()[0].startswith("parallel/threads is fastest")
    assert told()[2:] == [
        "Barred: parallel/processes, other words than alone in 5 of 5 cases.",
        "25 of 75 texts differ from what the models say alone: parallel/processes (25).",
    ]


def test_lost_cases_of_one_name_share_a_sentence_and_invalid_ones_share_one() -> None:
    lost = frame(
        "strategy status reason other_processes_cpu_share",
        ("sequential", "crashed", "killed", 0.1),
        ("sequential", "crashed", "another", 0.1),
        ("swapping", "skipped", "stopped by the reader", 0.1),
        ("swapping", "invalid", "a stranger", 0.75),
        ("swapping", "ok", "", 0.1),
        experiment="soak",
        mitigation="restart",
    )
    assert key_findings.unmeasured(lost) == [
        "sequential, remedy restart was not measured (crashed, 2 cases): killed.",
        "swapping, remedy restart was not measured (stopped): stopped by the reader.",
        "1 of 2 cases invalid: other programs used 75 % of the CPU; close them and repeat. "
        "Their bytes and texts count, their times do not.",
    ]
