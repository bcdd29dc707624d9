"""Tables that people read: rows of a run, summarised with units in their headings. No torch."""

from hybridlab.reporting.rows import filled
from hybridlab.reporting.tables.ageing import ageing_table, forecast_words, wear_table
from hybridlab.reporting.tables.arrivals import arrivals_table
from hybridlab.reporting.tables.containers import containers_table
from hybridlab.reporting.tables.edge import edge_table, least_rooms
from hybridlab.reporting.tables.memory import (
    attention_plan,
    attention_table,
    ledger_table,
    memory_table,
    of_largest,
)
from hybridlab.reporting.tables.quality import (
    RULE,
    Quality,
    qualities,
    quality_by_size,
    tenant_name,
)
from hybridlab.reporting.tables.race import (
    answer_accuracy,
    latency_table,
    phase_table,
    quality_table,
    same_answer,
)
from hybridlab.reporting.tables.slowdown import slowdown_table
from hybridlab.reporting.tables.swaps import swap_seconds, swap_spans, swap_table

__all__ = [
    "RULE",
    "Quality",
    "ageing_table",
    "answer_accuracy",
    "arrivals_table",
    "attention_plan",
    "attention_table",
    "containers_table",
    "edge_table",
    "filled",
    "forecast_words",
    "latency_table",
    "least_rooms",
    "ledger_table",
    "memory_table",
    "of_largest",
    "phase_table",
    "qualities",
    "quality_by_size",
    "quality_table",
    "same_answer",
    "slowdown_table",
    "swap_seconds",
    "swap_spans",
    "swap_table",
    "tenant_name",
    "wear_table",
]
