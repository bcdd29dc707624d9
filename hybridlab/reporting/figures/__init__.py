"""Figures: pure functions from tables to matplotlib Figures, and `save`.

Every title is a finding computed from the rows; a table without rows gives a figure that says what
is missing. One colour per tenant, everywhere, with a hatch, marker or dash as a second channel.
"""

from hybridlab.reporting.figures.break_even import break_even
from hybridlab.reporting.figures.interference import interference
from hybridlab.reporting.figures.latency import latency
from hybridlab.reporting.figures.latency_ecdf import latency_ecdf
from hybridlab.reporting.figures.load_sweep import load_sweep
from hybridlab.reporting.figures.memory import memory_bars, three_numbers
from hybridlab.reporting.figures.memory_over_time import memory_over_time
from hybridlab.reporting.figures.pareto import pareto
from hybridlab.reporting.figures.plan import plan_bars
from hybridlab.reporting.figures.predicted import predicted_against_measured
from hybridlab.reporting.figures.quality_memory import quality_memory
from hybridlab.reporting.figures.request import request
from hybridlab.reporting.figures.request_lanes import request_lanes
from hybridlab.reporting.figures.request_scaling import request_scaling
from hybridlab.reporting.figures.soak import soak
from hybridlab.reporting.figures.survival import survival
from hybridlab.reporting.figures.swaps import swap_stages
from hybridlab.reporting.figures.theme import save
from hybridlab.reporting.figures.throughput import throughput

__all__ = [
    "break_even",
    "interference",
    "latency",
    "latency_ecdf",
    "load_sweep",
    "memory_bars",
    "memory_over_time",
    "pareto",
    "plan_bars",
    "predicted_against_measured",
    "quality_memory",
    "request",
    "request_lanes",
    "request_scaling",
    "save",
    "soak",
    "survival",
    "swap_stages",
    "three_numbers",
    "throughput",
]
