"""Predicted bytes of a pair on a card, from the catalog and formulae. No torch, no measurement.

Every figure here is a prediction; notebooks set the measured one beside it. `weights` says what
stays, `activations` what a request adds in each phase, `memory_plan` puts both against a card,
`per_strategy` compares the strategies, `limits` asks for the most that fits.
"""

from hybridlab.planner.activations import (
    Request,
    attention_bytes,
    voxtral_kv_bytes,
    voxtral_phases,
    voxtral_request_bytes,
    whisper_phases,
    whisper_request_bytes,
)
from hybridlab.planner.estimate import Estimate, largest, total
from hybridlab.planner.memory_plan import (
    PairPlan,
    context_bytes,
    default_voxtral_dtype,
    plan_pair,
    plan_table,
)
from hybridlab.planner.per_strategy import ledger_by_strategy, memory_by_strategy
from hybridlab.planner.weights import (
    voxtral_weights_bytes,
    whisper_load_peak_bytes,
    whisper_weights_bytes,
)

__all__ = [
    "Estimate",
    "PairPlan",
    "Request",
    "attention_bytes",
    "context_bytes",
    "default_voxtral_dtype",
    "largest",
    "ledger_by_strategy",
    "memory_by_strategy",
    "plan_pair",
    "plan_table",
    "total",
    "voxtral_kv_bytes",
    "voxtral_phases",
    "voxtral_request_bytes",
    "voxtral_weights_bytes",
    "whisper_load_peak_bytes",
    "whisper_phases",
    "whisper_request_bytes",
    "whisper_weights_bytes",
]
