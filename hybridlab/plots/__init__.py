"""Figures: pure functions from tables to matplotlib Figures, and `save`.

Every title is a finding computed from the rows; a table without rows gives a figure that says what
is missing. One colour per tenant, everywhere, with a hatch, marker or dash as a second channel.
"""

from hybridlab.plots.ageing import ageing
from hybridlab.plots.arrivals import arrivals
from hybridlab.plots.break_even import break_even
from hybridlab.plots.edge import survival
from hybridlab.plots.interference import interference
from hybridlab.plots.limits import limits
from hybridlab.plots.memory import memory_bars, plan_bars, three_numbers
from hybridlab.plots.pareto import pareto
from hybridlab.plots.predicted import predicted_against_measured
from hybridlab.plots.quality import quality
from hybridlab.plots.quality_memory import quality_memory
from hybridlab.plots.request import request
from hybridlab.plots.speed import latency, latency_ecdf, throughput
from hybridlab.plots.style import save
from hybridlab.plots.swaps import swap_stages
from hybridlab.plots.timelines import memory_over_time, timeline
from hybridlab.stats import bootstrap_interval

__all__ = [
    "ageing",
    "arrivals",
    "bootstrap_interval",
    "break_even",
    "interference",
    "latency",
    "latency_ecdf",
    "limits",
    "memory_bars",
    "memory_over_time",
    "pareto",
    "plan_bars",
    "predicted_against_measured",
    "quality",
    "quality_memory",
    "request",
    "save",
    "survival",
    "swap_stages",
    "three_numbers",
    "throughput",
    "timeline",
]
