"""Tables that people read: rows of a run, summarised with units in their headings. No torch."""

from hybridlab.reporting.rows import filled
from hybridlab.reporting.tables.memory import (
    attention_plan,
    attention_table,
    ledger_table,
    memory_table,
    of_largest,
)
from hybridlab.reporting.tables.memory_limits import (
    least_headrooms,
    memory_limits_table,
    request_sizes,
)
from hybridlab.reporting.tables.overheads import containers_table, slowdown_table
from hybridlab.reporting.tables.quality import (
    model_name,
    qualities,
    quality_by_size,
)
from hybridlab.reporting.tables.shown import use_in_notebook
from hybridlab.reporting.tables.soak import growth_table, soak_table
from hybridlab.reporting.tables.strategy_comparison import (
    answer_accuracy,
    arrivals_table,
    latency_table,
    phase_table,
    quality_table,
    texts_table,
)
from hybridlab.reporting.tables.swaps import swap_seconds, swap_spans, swap_table

__all__ = [
    "answer_accuracy",
    "arrivals_table",
    "attention_plan",
    "attention_table",
    "containers_table",
    "filled",
    "growth_table",
    "latency_table",
    "least_headrooms",
    "ledger_table",
    "memory_limits_table",
    "memory_table",
    "model_name",
    "of_largest",
    "phase_table",
    "qualities",
    "quality_by_size",
    "quality_table",
    "request_sizes",
    "slowdown_table",
    "soak_table",
    "swap_seconds",
    "swap_spans",
    "swap_table",
    "texts_table",
    "use_in_notebook",
]
