"""Figures: pure functions from tables to matplotlib Figures, and `save`.

Every title is a finding computed from the rows; a table without rows gives a figure that says what
is missing. One colour per model, everywhere, with a hatch, marker or dash as a second channel.
"""

from hybridlab.reporting.figures.heatmaps import break_even, interference
from hybridlab.reporting.figures.limits import request_scaling, survival
from hybridlab.reporting.figures.load_sweep import load_sweep
from hybridlab.reporting.figures.memory import memory_bars, three_numbers
from hybridlab.reporting.figures.predictions import predicted_against_measured
from hybridlab.reporting.figures.quality import quality_memory
from hybridlab.reporting.figures.request import request
from hybridlab.reporting.figures.soak import soak
from hybridlab.reporting.figures.strategies import latency, latency_ecdf, pareto, throughput
from hybridlab.reporting.figures.swaps import swap_stages
from hybridlab.reporting.figures.theme import save
from hybridlab.reporting.figures.timeline import memory_over_time, request_lanes
from hybridlab.reporting.figures.which_fits import which_fits

__all__ = [
    "break_even",
    "interference",
    "latency",
    "latency_ecdf",
    "load_sweep",
    "memory_bars",
    "memory_over_time",
    "pareto",
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
    "which_fits",
]
