"""Work of a case that serves one request of a given size: a batch, or an audio made long."""

from __future__ import annotations

from pathlib import Path

from hybridlab import catalog, planner
from hybridlab.audio import of_length, read_audio
from hybridlab.experiments.case_context import CaseContext, text_columns, trial_identity
from hybridlab.experiments.workloads import common
from hybridlab.models import make_llm


def run(context: CaseContext) -> None:
    """The LLM alone, twice: the first request also pays for libraries that load lazily. Options
    `batch`, and `audio_s` (0: the clip's own)."""
    case, spec = context.case, context.case.requests[0]
    llm = make_llm(case.llm, context.device)
    common.load_alone(context, llm)
    samples, audio_s = read_audio(Path(spec.path)), float(case.options["audio_s"])
    batch = [of_length(samples, audio_s)] if audio_s else [samples] * int(case.options["batch"])
    context.enter("request")
    for number in range(2):
        with context.meter.region("request") as region:
            answer = llm.answer(
                batch, [spec.question] * len(batch), max_new_tokens=case.answer_tokens
            )[0]
        context.writer.append(
            "trials",
            {
                **trial_identity(context, spec),
                "request_id": f"{spec.id}-{number}",
                "audio_s": sum(len(item) for item in batch) / catalog.SAMPLE_RATE_HZ,
                "latency_s": region.seconds,
                "is_first_request": number == 0,
                **text_columns(None, answer if context.has_text(case.llm) else None),
                "answer_tokens": list(answer.tokens),
                "output_tokens": len(answer.tokens),
                "expected_answer": None,
                "output_matches_reference": None,
            },
        )
    context.meter.idle = idle = context.meter.settle()
    context.result |= {
        "n_trials": 2,
        "request_bytes": region.peak_above_start_bytes,
        "audio_s": audio_s,
        "predicted_bytes": idle.used_bytes + _predicted_bytes(context, audio_s, len(batch)),
    }


def _predicted_bytes(context: CaseContext, audio_s: float, batch: int) -> int:
    case = context.case
    return planner.voxtral_request_bytes(
        catalog.voxtral(case.llm.model),
        case.predicted_request(audio_s or catalog.WINDOW_S, batch),
        dtype=case.llm.dtype,
        card=case.card_on(context.device),
        attention=case.llm.attention,
    )
