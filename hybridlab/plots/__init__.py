"""Figures: pure functions from tables to matplotlib Figures, and `save`.

Every title is a finding computed from the rows; a table without rows gives a figure that says what
is missing. One colour per tenant, everywhere, with a hatch, marker or dash as a second channel.
"""

from hybridlab.plots.ageing import ageing
from hybridlab.plots.arrivals import arrivals
from hybridlab.plots.break_even import break_even
from hybridlab.plots.containers import containers_memory, containers_time
from hybridlab.plots.distribution import latency_ecdf
from hybridlab.plots.edge import survival
from hybridlab.plots.interference import interference
from hybridlab.plots.limits import limits
from hybridlab.plots.memory import memory_bars, three_numbers
from hybridlab.plots.pareto import pareto
from hybridlab.plots.plan import plan_bars
from hybridlab.plots.predicted import predicted_against_measured
from hybridlab.plots.quality_memory import quality_memory
from hybridlab.plots.request import request
from hybridlab.plots.request_lanes import request_lanes
from hybridlab.plots.speed import latency
from hybridlab.plots.style import save
from hybridlab.plots.swaps import swap_stages
from hybridlab.plots.throughput import throughput
from hybridlab.plots.timelines import memory_over_time, timeline

__all__ = [
    "ageing",
    "arrivals",
    "break_even",
    "containers_memory",
    "containers_time",
    "interference",
    "latency",
    "latency_ecdf",
    "limits",
    "memory_bars",
    "memory_over_time",
    "pareto",
    "plan_bars",
    "predicted_against_measured",
    "quality_memory",
    "request",
    "request_lanes",
    "save",
    "survival",
    "swap_stages",
    "three_numbers",
    "throughput",
    "timeline",
]
