"""Our ways of sharing against what people run today, as JSON on stdout and a table on stderr:
`python -m benchmarks.peers [--llm-model mini-3b --asr-model tiny --weights random --rounds 5]`.

All arms take turns in one process, on the same clips and questions. No other work should run. The
device holds Voxtral once and Whisper once for each library; an arm that finds no room is `oom`.
A pipelined request's latency has its wait for the one before in it: compare its throughput.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.peers.arms import PEERS, Pair, saved
from benchmarks.peers.race import run, summary, table
from hybridlab.audio import read_audio
from hybridlab.config.params import SequentialParams
from hybridlab.devices.system_info import machine, versions
from hybridlab.errors import HybridlabError, ParameterError
from hybridlab.experiments.case_worker import quiet_libraries
from hybridlab.experiments.session import Session
from hybridlab.profiling.contention import ContentionMonitor
from hybridlab.strategies import Request

WEIGHTS = ("pocket", "random", "hub")


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ParameterError(message)


def parser() -> argparse.ArgumentParser:
    made = OneLineParser(prog="python -m benchmarks.peers", description=__doc__)
    made.add_argument("--llm-model", default="pocket", help="pocket or mini-3b")
    made.add_argument(
        "--asr-model", default="pocket-m", help="pocket-s, pocket-m, or a released size"
    )
    made.add_argument("--weights", default="pocket", help="of all but pocket models: random or hub")
    made.add_argument("--llm-dtype", default="auto")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--trials", type=int, default=8, help="requests of each arm in each round")
    made.add_argument("--max-new-tokens", type=int, default=64)
    made.add_argument("--device", default="auto")
    made.add_argument("--audio", default="", help="a folder or manifest (default: shipped clips)")
    made.add_argument("--out", default="", help="write the JSON to this file, too")
    return made


def parameters(options: argparse.Namespace, folder: str) -> SequentialParams:
    """The arguments as the notebooks' parameters, which check them."""
    if options.weights not in WEIGHTS:
        raise ParameterError.unknown_name("weights", options.weights, WEIGHTS)

    def source(model: str) -> str:
        return "pocket" if model.startswith("pocket") else str(options.weights)

    if options.weights != "pocket" == source(options.llm_model) == source(options.asr_model):
        raise ParameterError(
            f"weights {options.weights!r} fit neither model: pocket models have pocket weights"
        )
    if options.out and not Path(options.out).expanduser().absolute().parent.is_dir():
        raise ParameterError(f"the folder of --out {options.out!r} does not exist")
    return SequentialParams.from_mapping(
        {
            "llm_model": options.llm_model,
            "llm_weights": source(options.llm_model),
            "llm_dtype": options.llm_dtype,
            "asr_model": options.asr_model,
            "asr_weights": source(options.asr_model),
            "rounds": options.rounds,
            "trials": options.trials,
            "max_new_tokens": options.max_new_tokens,
            "device": options.device,
            "audio": options.audio,
            "output_dir": f"{folder}/run",
        }
    )


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
            max_new_tokens=params.max_new_tokens,
        )
        for number, spec in enumerate(specs)
    ]
    by_id = dict(zip((request.id for request in requests), specs, strict=True))
    whisper = saved(session.asr, session.device, Path(folder) / "asr")
    tenants = {"asr": whisper, "llm": session.llm}
    with_text = [name for name, spec in tenants.items() if spec.has_text]
    fixed = {name: params.max_new_tokens for name in tenants if name not in with_text}
    pair = Pair(whisper, session.llm, session.device)
    watch = ContentionMonitor(session.device)
    outcomes = run(pair.makers(), requests, rounds=params.rounds, fixed_tokens=fixed)
    bystanders = watch.columns()
    session.close()
    return {
        "machine": machine(),
        "versions": versions() | {"accelerate": metadata.version("accelerate")},
        "arguments": {name: value for name, value in vars(options).items() if name != "out"},
        "device": session.device.title(),
        "dtypes": {"asr": session.asr.dtype, "llm": session.llm.dtype},
        "fixed": fixed_work(params, fixed),
        "bystanders": bystanders,
        "peers": PEERS,
        "arms": summary(
            outcomes,
            references={name: spec.reference for name, spec in by_id.items()},
            answers={name: spec.expected_answer for name, spec in by_id.items()},
            with_text=with_text,
        ),
    }


def fixed_work(params: SequentialParams, tokens: Mapping[str, int]) -> list[str]:
    """What is the same for all arms."""
    most = params.max_new_tokens
    return [
        f"{params.trials} requests a round, the same clips and questions in the same order",
        f"language {params.language}, greedy, no timestamps, audio in windows of at most 30 s",
        *(
            f"exactly {count} tokens of {name} for each job and window"
            for name, count in tokens.items()
        ),
        *(
            f"at most {most} tokens of {name} for each job and window; it may end before"
            for name in ("asr", "llm")
            if name not in tokens
        ),
        *(
            ["solo's transcript is Voxtral's, which may end: not the same work as the others'"]
            if list(tokens) == ["asr"]
            else []
        ),
    ]


def main() -> None:
    try:
        options = parser().parse_args()
        with tempfile.TemporaryDirectory(prefix="hybridlab-peers-") as folder:
            result = measured(options, folder)
    except HybridlabError as error:
        raise SystemExit(f"error: {error}") from None
    text = json.dumps(result, indent=2)
    if options.out:
        Path(options.out).expanduser().write_text(text + "\n", encoding="utf-8")
    print(text)
    print(table(result["arms"]), file=sys.stderr)


if __name__ == "__main__":
    main()
