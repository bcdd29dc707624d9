"""The inside of a case: load, warm up, measure, write rows. Runs in the case's own process."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hybridlab import catalog, planner
from hybridlab.audio import of_length, read_audio
from hybridlab.catalog.device_names import simulated_card
from hybridlab.devices import Device, Reading, resolve_device
from hybridlab.devices.memory_limit import limit_memory
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import UnavailableError
from hybridlab.experiments.case import Case, RequestSpec
from hybridlab.experiments.case_context import (
    CaseContext,
    attention_kernel,
    memory_columns,
    trial_identity,
    write_samples,
    write_spans,
    write_trial,
)
from hybridlab.experiments.live_feed import LiveFeed
from hybridlab.experiments.memory_breakdown import write_ledgers
from hybridlab.experiments.workloads import (
    common,
    fallback,
    interference,
    limit_search,
    poisson_arrivals,
    soak,
)
from hybridlab.models import (
    AudioLanguageModel,
    GenerationResult,
    Model,
    SpeechRecognizer,
    make_asr,
    make_llm,
)
from hybridlab.models.base import compute_values
from hybridlab.profiling.contention import ContentionMonitor, contention_reason
from hybridlab.profiling.memory_profiler import MemoryProfiler
from hybridlab.results.manifest import write_json
from hybridlab.results.writer import TableWriter
from hybridlab.strategies import ArrivalQueue, CompletedRequest, Strategy
from hybridlab.strategies.fallback import FallbackChain, Serves
from hybridlab.strategies.maintenance import Maintenance, WithMaintenance


def execute(
    case: Case, writer: TableWriter, result_path: Path, live_path: Path | None = None
) -> None:
    """Run a case and leave its rows and its result in files; `live_path` is where somebody watches
    what it does.

    Out of memory and a lack of the machine are results, in whatever stage they come; any other
    fault ends the process with its traceback in the case's log, which the notebook's side records
    as a crash.
    """
    quiet_libraries()
    compute_values(case.llm, case.asr, *case.candidates)
    torch.manual_seed(case.llm.seed)
    try:
        result = _measured(case, writer, result_path, live_path)
    except Exception as error:
        result = _as_result(error, "set-up")  # the work's own have been taken as results by then
    write_json(result_path, result)


def _measured(
    case: Case, writer: TableWriter, result_path: Path, live_path: Path | None
) -> dict[str, Any]:
    """The case's own columns of `cases`."""
    device = resolve_device(case.device)
    started = time.perf_counter()
    # what malloc keeps of a larger Whisper would count against a limit: give it back
    stepping = bool(case.candidates and case.memory_limit_bytes)
    if case.phases or case.work in MEMORY_WORK or stepping:
        device.count_exactly()
    with MemoryProfiler(device) as meter, ExitStack() as stack:
        log = result_path.with_suffix(".log")
        context = CaseContext(
            case,
            device,
            meter,
            writer,
            started,
            stack=stack,
            log=log,
            broadcast=LiveFeed(live_path),
        )
        watch = ContentionMonitor(device)
        with _playing(case, device):
            _introduce(context)
            outcome = _outcome(context)
            columns = memory_columns(context) | watch.columns()
            columns["attention_kernel"] = attention_kernel(case, device)
    disturbed = contention_reason(columns, max_other_cpu_share=case.max_other_cpu_share)
    timed = case.work in TIMED_WORK and not case.phases and not simulated_card(case.device)
    if disturbed and timed and outcome["status"] == "ok":
        outcome = {"status": "invalid", "reason": disturbed}
    write_samples(context)
    return {**columns, **context.result, **outcome}


def _introduce(context: CaseContext) -> None:
    """What a watcher is told once: the capacity, and what others hold of the device."""
    if context.broadcast.watched:
        device, others = context.device, context.device.memory_owners().external
        context.broadcast.tell(
            capacity_bytes=device.capacity_bytes(),
            memory_limited=device.memory_limited,
            others_bytes=others.get("other processes", others.get("other processes", 0)),
        )


def _outcome(context: CaseContext) -> dict[str, Any]:
    """Do the work; what the machine lacks is a status with its reason."""
    try:
        WORK[context.case.work](context)
    except Exception as error:
        return _as_result(error, context.phase)
    return {"status": "ok", "reason": ""}


def _as_result(error: Exception, phase: str) -> dict[str, Any]:
    """What became of a case in which this came up in this phase; another fault is raised again."""
    if isinstance(error, UnavailableError):
        return {"status": "skipped", "reason": str(error)}
    failure = out_of_memory(error)  # libraries wrap it in whatever they like
    if failure is None:
        raise error
    return {
        "status": "oom",
        "reason": f"in phase {phase}: {failure.message}",
        "requested_bytes": failure.requested_bytes,
    }


def quiet_libraries() -> None:
    """Progress bars and advice of the libraries have no place in a case's log."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def _playing(case: Case, device: Device) -> AbstractContextManager[None]:
    """The memory limit of the case; nothing where the device plays itself."""
    return (
        limit_memory(device, case.memory_limit_bytes) if case.memory_limit_bytes else nullcontext()
    )


# ------------------------------------------------------------------------------------------ work


def _serve(context: CaseContext) -> None:
    """A stream of requests under one strategy, with the parity gate against `expected_texts`; out
    of memory steps down the case's `candidates`."""
    case, result = context.case, context.result
    expected = read_texts(case.options.get("expected_texts"))
    maintenance = Maintenance(**case.options.get("maintenance", {}))
    serving = _serving(context, maintenance)
    by_id = {spec.id: spec for spec in case.requests}
    began, energy = time.perf_counter(), context.device.energy_j()
    for index, served in enumerate(_completed(context, serving)):
        spec = by_id[served.request.id]
        stepped = context.case.asr != case.asr
        write_trial(
            context,
            spec,
            served,
            is_first_request=index == 0 and case.warmup == 0,
            output_matches_reference=_parity(
                expected, serving.current, spec, served, stepped=stepped
            ),
        )
    result["throughput_rps"] = len(case.requests) / (time.perf_counter() - began)
    result |= _energy_columns(energy, context.device.energy_j(), len(case.requests))
    result["n_trials"] = len(case.requests)
    result["cache_clears"], result["model_reloads"] = maintenance.cache_clears, maintenance.reloads
    result["maintenance_s"] = maintenance.seconds
    _finish(context, serving)


def _serving(context: CaseContext, maintenance: Maintenance) -> Serves:
    """What serves the case's requests, loaded and warm: its strategy, or a chain of them."""
    if context.case.candidates:
        chain = fallback.chain_of(context, maintenance)
        chain.open()
        return chain
    strategy = common.strategy_of(context)
    serving = WithMaintenance(strategy, maintenance) if maintenance.active else strategy
    common.bring_up(context, strategy)
    return serving


def _apart(case: Case) -> bool:
    """One request whose phases are told apart; of several that is another one, afterwards."""
    return case.phases and len(case.requests) == 1


def _completed(context: CaseContext, serving: Serves) -> Iterator[CompletedRequest]:
    requests = common.requests_of(context)
    if _apart(context.case):
        yield common.measured_request(context, serving.current, requests[0], phases=True)
        return
    yield from serving.stream(ArrivalQueue(requests), measure=partial(common.measured, context))


def _finish(context: CaseContext, serving: Serves) -> None:
    """What is said of a case when its requests are served."""
    case, strategy = context.case, serving.current
    steps = serving.steps if isinstance(serving, FallbackChain) else []
    context.result["worker_restarts"] = sum(tenant.restarts for tenant in strategy.tenants)
    if case.candidates and case.asr is not None:
        context.result["served_by_model"] = case.asr.model
        context.result["fallbacks"] = len(steps)
    if case.phases and not _apart(case):
        longest = max(case.requests, key=lambda spec: spec.audio_s)
        request = common.request_of(context, longest)
        common.measured_request(context, strategy, request, phases=True)
    if not steps:  # a ledger is one pair's, and the peaks would be another's
        write_ledgers(context, strategy)
    context.enter("close")
    serving.close()


def _energy_columns(before: Reading, after: Reading, requests: int) -> dict[str, Any]:
    """Joules of the whole device for each request, idle power and neighbours included."""
    if before.value is None or after.value is None:
        return {"request_energy_j": None, "energy_reason": before.reason or after.reason}
    return {"request_energy_j": (after.value - before.value) / requests, "energy_reason": ""}


def _alone(context: CaseContext) -> None:
    """Each tenant by itself on every clip and question: the texts that parity is held against.
    Options `only` (a tenant's name) and `answers` (False: transcripts alone) leave work out."""
    case, device = context.case, context.device
    texts: dict[str, list[int]] = {}
    tenants: list[Model] = [make_llm(case.llm, device)]
    if case.asr is not None:
        tenants.append(make_asr(case.asr, device))
    only = case.options.get("only")
    for tenant in tenants if only is None else [own for own in tenants if own.name == only]:
        _follow_alone(context, tenant)
        context.enter(f"load {tenant.name}")
        with context.meter.region("load"):
            tenant.load()
        context.meter.settle()
        context.result[f"{tenant.name}_weights_bytes"] = tenant.weights_bytes()
        for number, spec in enumerate(case.requests):
            context.enter(f"{tenant.name} alone")
            _alone_request(context, tenant, spec, texts, is_first_request=number == 0)
        tenant.unload()
    context.result["n_trials"] = len(case.requests)
    if "texts_path" in case.options:
        write_json(Path(case.options["texts_path"]), texts)


def _follow_alone(context: CaseContext, tenant: Model) -> None:
    """The phases and the weights of a tenant without a strategy."""
    weights = f"{tenant.name} weights"
    context.follow([tenant], lambda: {weights: tenant.weights_bytes() or 0 if tenant.loaded else 0})


def _alone_request(
    context: CaseContext,
    tenant: Model,
    spec: RequestSpec,
    texts: dict[str, list[int]],
    *,
    is_first_request: bool,
) -> None:
    case = context.case
    samples = read_audio(Path(spec.path))
    answer: GenerationResult | None = None
    context.device.synchronize()
    with context.meter.region("request") as region:
        assert isinstance(tenant, SpeechRecognizer)
        transcript = tenant.transcribe(
            [samples], language=case.language, max_new_tokens=case.max_new_tokens
        )[0]
        if isinstance(tenant, AudioLanguageModel) and case.options.get("answers", True):
            # its answers are held against those of a race: their spans apart
            write_spans(context, f"{spec.id}-transcript", tenant.drain_spans())
            answer = tenant.answer([samples], [spec.question], max_new_tokens=case.max_new_tokens)[
                0
            ]
            texts[f"answer/{spec.id}"] = list(answer.tokens)
    texts[f"{tenant.name}/{spec.clip_id}"] = list(transcript.tokens)
    write_spans(context, spec.id, tenant.drain_spans())
    context.writer.append(
        "trials",
        {
            **trial_identity(context, spec),
            "variant": tenant.name,
            "latency_s": region.seconds,
            "is_first_request": is_first_request,
            "transcript": transcript.text if tenant.spec.has_text else None,
            "answer": answer.text if answer and tenant.spec.has_text else None,
            "output_matches_reference": None,
        },
    )


def _limit(context: CaseContext) -> None:
    """One request of a given size: a batch, or an audio made long by repetition."""
    case = context.case
    llm = make_llm(case.llm, context.device)
    _follow_alone(context, llm)
    context.enter("load")
    with context.meter.region("load"):
        llm.load()
    context.meter.settle()
    context.result["llm_weights_bytes"] = llm.weights_bytes()
    samples = read_audio(Path(case.requests[0].path))
    batch = [samples] * int(case.options["batch"])
    if case.options["audio_s"]:
        batch = [of_length(samples, float(case.options["audio_s"]))]
    questions = [case.requests[0].question] * len(batch)
    context.enter("request")
    for number in range(2):
        with context.meter.region("request") as region:
            said = llm.answer(batch, questions, max_new_tokens=case.max_new_tokens)[0]
        spec = case.requests[0]
        context.writer.append(
            "trials",
            {
                **trial_identity(context, spec),
                "request_id": f"{spec.id}-{number}",
                "audio_s": sum(len(item) for item in batch) / catalog.SAMPLE_RATE_HZ,
                "latency_s": region.seconds,
                "is_first_request": number == 0,
                "transcript": None,
                "answer": said.text if case.llm.has_text else None,
                "answer_tokens": list(said.tokens),
                "output_tokens": len(said.tokens),
                "expected_answer": None,
                "output_matches_reference": None,
            },
        )
    context.result["n_trials"] = 2
    # the first request also pays for libraries that load lazily
    context.result["request_bytes"] = region.peak_above_start_bytes
    context.result["audio_s"] = float(case.options["audio_s"])
    request = planner.Request(
        audio_s=float(case.options["audio_s"]) or catalog.WINDOW_S,
        batch=len(batch),
        new_tokens=case.max_new_tokens,
    )
    context.result["predicted_bytes"] = (context.meter.idle_bytes or 0) + (
        planner.voxtral_request_bytes(
            catalog.voxtral(case.llm.model),
            request,
            dtype=case.llm.dtype,
            card=case.card_on(context.device) or catalog.HOST,
            attention=case.llm.attention,
        )
    )


def _largest(context: CaseContext) -> None:
    strategy = common.strategy_of(context)
    common.load(context, strategy)
    limit_search.find_largest(context, strategy)
    strategy.close()


def _squeeze(context: CaseContext) -> None:
    strategy = common.strategy_of(context)
    common.bring_up(context, strategy)
    limit_search.find_minimum_headroom(context, strategy)
    strategy.close()


#: Work whose bytes are the result and whose times are not quoted.
MEMORY_WORK = ("limit", "limit_search", "headroom", "fallback")
#: Work whose times are quoted (but for requests taken apart by phase, which are about bytes): they
#: are invalid where other processes were at work.
TIMED_WORK = ("serve", "reference", "poisson_arrivals", "interference", "soak")
WORK: dict[str, Callable[[CaseContext], None]] = {
    "serve": _serve,
    "reference": _alone,
    "poisson_arrivals": poisson_arrivals.arrive,
    "interference": interference.run_pairwise,
    "limit": _limit,
    "limit_search": _largest,
    "headroom": _squeeze,
    "fallback": _serve,
    "soak": soak.run_soak,
}

# ---------------------------------------------------------------------------------------- parity


def read_texts(path: str | None) -> dict[str, list[int]]:
    """Token ids of each tenant alone, as `_alone` wrote them; empty without a path."""
    if not path:
        return {}
    return dict(json.loads(Path(path).read_text(encoding="utf-8")))


def _parity(
    expected: dict[str, list[int]],
    strategy: Strategy,
    spec: RequestSpec,
    served: CompletedRequest,
    *,
    stepped: bool,
) -> bool | None:
    """Whether both tenants said what they say alone, token by token. None without a reference:
    for a transcript also where Whisper works on another device, whose rounding is its own, or is
    `stepped`: a smaller one than the pair's."""
    if not expected:
        return None
    if list(served.answer.tokens) != expected[f"answer/{spec.id}"]:
        return False
    if strategy.name == "solo":
        return list(served.transcript.tokens) == expected[f"llm/{spec.clip_id}"]
    if stepped or strategy.asr.device.kind != strategy.device.kind:
        return None
    return list(served.transcript.tokens) == expected[f"asr/{spec.clip_id}"]
