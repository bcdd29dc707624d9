"""Our ways of sharing against what people run today, as JSON on stdout and a table on stderr:
`python -m benchmarks.peers [--llm-model mini-3b --asr-model tiny --weights random --rounds 5]`.

All arms take turns in one process, on the same clips and questions, greedy and without timestamps,
audio in windows of at most 30 s. No other work should run. The device holds Voxtral once and
Whisper once for each library; an arm that finds no room is `oom`. With random weights each job and
window is exactly `exact_tokens` long, else at most `--max-new-tokens`; solo's transcript is
Voxtral's, which may end before. A pipelined request's latency has its wait for the one before in
it: compare its throughput.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.peers.arms import PEERS, Pair, saved
from benchmarks.peers.race import run, summary, table
from benchmarks.report import options as command_line
from benchmarks.report import publish
from hybridlab.audio import read_audio
from hybridlab.config.params import SequentialParams
from hybridlab.errors import HybridlabError, ParameterError
from hybridlab.experiments.case_worker import quiet_libraries
from hybridlab.experiments.session import Session
from hybridlab.profiling.contention import ContentionMonitor
from hybridlab.strategies import Request

WEIGHTS = ("pocket", "random", "hub")


#: `weights` are of all but pocket models; `trials` are requests of each arm in each round;
#: `max_new_tokens` is Voxtral's limit, and the work of random weights in either model; `audio` is a
#: folder or manifest instead of the shipped clips; `out` gets the JSON, too.
DEFAULTS: dict[str, Any] = {
    "llm_model": "pocket",
    "asr_model": "pocket-m",
    "weights": ("pocket", WEIGHTS),
    "llm_dtype": "auto",
    "rounds": 3,
    "trials": 8,
    "max_new_tokens": 64,
    "device": "auto",
    "audio": "",
    "out": "",
}


def parameters(options: argparse.Namespace, folder: str) -> SequentialParams:
    """The arguments as the notebooks' parameters, which check them."""

    def source(model: str) -> str:
        return "pocket" if model.startswith("pocket") else str(options.weights)

    if options.weights != "pocket" == source(options.llm_model) == source(options.asr_model):
        raise ParameterError(
            f"weights {options.weights!r} fit neither model: pocket models have pocket weights"
        )
    if options.out and not Path(options.out).expanduser().absolute().parent.is_dir():
        raise ParameterError(f"the folder of --out {options.out!r} does not exist")
    given = {n: v for n, v in vars(options).items() if n not in ("weights", "out")}
    sources = {f"{role}_weights": source(given[f"{role}_model"]) for role in ("llm", "asr")}
    # plain: the peers are asked for no timestamps either
    own = {"asr_decoding": "plain", "output_dir": f"{folder}/run"}
    return SequentialParams.from_mapping({**given, **sources, **own})


def measured(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    params = parameters(options, folder)
    quiet_libraries()
    session = Session.open(params)
    session.preflight()
    specs = session.requests(params.trials)
    clips = {spec.path: read_audio(Path(spec.path)) for spec in specs}
    # a request's own number, since the same clip may come with the same question again
    requests = [
        Request(
            id=f"{number}-{spec.id}",
            samples=clips[spec.path],
            question=spec.question,
            language=params.language,
            max_new_tokens=options.max_new_tokens,
            asr_max_new_tokens=None if session.asr.has_text else options.max_new_tokens,
        )
        for number, spec in enumerate(specs)
    ]
    by_id = dict(zip((request.id for request in requests), specs, strict=True))
    whisper = saved(session.asr, session.device, Path(folder) / "asr")
    pair = {"asr": whisper, "llm": session.llm}
    with_text = [role for role, spec in pair.items() if spec.has_text]
    fixed = {role: options.max_new_tokens for role in pair if role not in with_text}
    makers = Pair(whisper, session.llm, session.device).makers()
    watch = ContentionMonitor(session.device)
    outcomes = run(makers, requests, rounds=params.rounds, fixed_tokens=fixed)
    bystanders = watch.columns()
    session.close()
    return {
        "accelerate": metadata.version("accelerate"),
        "arguments": {name: value for name, value in vars(options).items() if name != "out"},
        "device": session.device.title(),
        "dtypes": {"asr": session.asr.dtype, "llm": session.llm.dtype},
        "exact_tokens": fixed,
        "bystanders": bystanders,
        "peers": PEERS,
        "arms": summary(
            outcomes,
            references={name: spec.reference for name, spec in by_id.items()},
            answers={name: spec.expected_answer for name, spec in by_id.items()},
            with_text=with_text,
        ),
    }


def main() -> None:
    try:
        options = command_line(__doc__, **DEFAULTS)
        with tempfile.TemporaryDirectory(prefix="hybridlab-peers-") as folder:
            result = measured(options, folder)
    except HybridlabError as error:
        raise SystemExit(f"error: {error}") from None
    text = publish(**result)
    if options.out:
        Path(options.out).expanduser().write_text(f"{text}\n", encoding="utf-8")
    print(table(result["arms"]), file=sys.stderr)


if __name__ == "__main__":
    main()
