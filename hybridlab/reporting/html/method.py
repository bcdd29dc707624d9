"""How the run's numbers were made, in words: what the method is, with this run's own counts."""

from __future__ import annotations

from hybridlab import MEASUREMENT_VERSION
from hybridlab.analysis.stats import RESAMPLES, STABLE_HALF_WIDTH, STABLE_LEAST_N
from hybridlab.reporting.figures import wording
from hybridlab.reporting.html.about import default_params
from hybridlab.reporting.html.model import Run, words
from hybridlab.reporting.html.tables import CONTROL
from hybridlab.results.records import has_clock
from hybridlab.simulation import NO_TIMES


def method_facts(run: Run) -> list[tuple[str, str]]:
    """Label and text of each rule that stands behind the numbers."""
    version = words(run.origin("measurement_version"), empty="unknown")
    asked = default_params() | run.params
    return [
        (
            "Measurement version",
            f"{version} (this program's: {MEASUREMENT_VERSION}); it is raised whenever a number is "
            "made in another way",
        ),
        ("Cases", _cases_words(run)),
        (
            "Requests",
            f"{words(asked.get('trials'))} a case after {words(asked.get('warmup'))} to warm up, "
            f"{words(asked.get('rounds'))} rounds; ways that are compared take turns, and the "
            "first request of a case is kept apart",
        ),
        (
            "Times",
            "from synchronised clocks, one row per request; "
            f"'against {CONTROL}' compares within one notebook, since only those took turns"
            if has_clock(run.cases)
            else f"none: {NO_TIMES}",
        ),
        (
            "Intervals",
            f"medians with a percentile bootstrap of 95 %, {RESAMPLES:,} draws with a fixed seed; "
            f"'unstable' is wider than {STABLE_HALF_WIDTH:.0%} of the median on either side, or "
            f"fewer than {STABLE_LEAST_N} requests",
        ),
        (
            "Bytes",
            "load peak, at rest and request peak are the allocator's own on CUDA, and the resident "
            "memory of the case's process on a CPU; the ledger's owners add up to the total, with "
            "the unexplained rest as a row",
        ),
        (
            "Invalid",
            "times are taken again, and then marked invalid, where other processes used more than "
            f"{wording.percent(float(asked['most_foreign_cpu']))} of the processors or any other "
            "one the GPU",
        ),
        (
            "Texts",
            "each tenant's words under every way of sharing must equal those that it says alone",
        ),
    ]


def _cases_words(run: Run) -> str:
    counts = run.cases["status"].value_counts()
    told = ", ".join(f"{count} {words(status)}" for status, count in counts.items())
    inline = (
        " (this run: inside the notebook, as 'inline' asks)" if run.params.get("inline") else ""
    )
    return (
        f"{wording.counted(len(run.cases), 'case')}{': ' + told if told else ''}; each in a fresh "
        f"process{inline}, so that a crash or an error of memory is a result and not an end"
    )
