"""Work of a case that asks each model by itself: the texts that parity is held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybridlab.audio import read_audio
from hybridlab.experiments.case import RequestSpec
from hybridlab.experiments.case_context import (
    CaseContext,
    text_columns,
    trial_identity,
    write_spans,
)
from hybridlab.experiments.workloads import common
from hybridlab.models import (
    AudioLanguageModel,
    GenerationResult,
    SpeechRecognizer,
    TranscribeOptions,
    make_asr,
    make_llm,
)
from hybridlab.results.manifest import write_json


def run(context: CaseContext) -> None:
    """Every clip and question. Options `only` (a role) and `answers` (False: transcripts alone)
    leave work out."""
    case = context.case
    texts: dict[str, dict[str, Any]] = {}
    models: list[SpeechRecognizer] = [make_llm(case.llm, context.device)]
    if case.asr is not None:
        models.append(make_asr(case.asr, context.device))
    for model in models:
        if case.options.get("only", model.name) == model.name:
            common.load_alone(context, model)
            for number, spec in enumerate(case.requests):
                context.enter(f"{model.name} alone")
                _ask(context, model, spec, texts, is_first_request=number == 0)
            model.unload()
    context.result["n_trials"] = len(case.requests)
    if "texts_path" in case.options:
        write_json(Path(case.options["texts_path"]), texts)


def _ask(
    context: CaseContext,
    model: SpeechRecognizer,
    spec: RequestSpec,
    texts: dict[str, dict[str, Any]],
    *,
    is_first_request: bool,
) -> None:
    case = context.case
    samples = read_audio(Path(spec.path))
    answer: GenerationResult | None = None
    context.device.synchronize()
    with context.meter.region("request") as region:
        is_llm = isinstance(model, AudioLanguageModel)
        own = case.max_new_tokens if is_llm else case.asr_tokens
        options = TranscribeOptions(language=case.language, max_new_tokens=own)
        (transcript,) = model.transcribe([samples], options)
        if isinstance(model, AudioLanguageModel) and case.options.get("answers", True):
            # its answers are held against those of a race: their spans apart
            write_spans(context, f"{spec.id}-transcript", model.drain_spans())
            (answer,) = model.answer([samples], [spec.question], max_new_tokens=case.answer_tokens)
            texts[f"answer/{spec.id}"] = _said(answer)
    texts[f"{model.name}/{spec.clip_id}"] = _said(transcript)
    write_spans(context, spec.id, model.drain_spans())
    context.writer.append(
        "trials",
        {
            **trial_identity(context, spec),
            "variant": model.name,
            "latency_s": region.seconds,
            "is_first_request": is_first_request,
            **(
                text_columns(transcript, answer)
                if context.has_text(model.spec)
                else text_columns(None, None)
            ),
            "output_matches_reference": None,
        },
    )


def _said(result: GenerationResult) -> dict[str, Any]:
    """What parity is held against, and whether it may be."""
    return {"tokens": list(result.tokens), "finish": result.finish_reason}
