"""What a machine with a GPU can say within minutes, in one folder to publish: `make gpu-check` or
`python -m benchmarks.gpu_check --output DIR [--budget-s 480] [--only pairs,swaps]`.

The most valuable first, each step in processes of its own: the same pairs on this card and on a
simulated one of its kind, swaps against the link, decoding against its floor, the tests marked
`gpu`, and every way of sharing inside a T4's memory. A step that fails, is cut or cannot be done
here is a result with its reason, and the next one goes on. It needs no network, no weights and no
more of the host than Colab has.

`summary.json` holds every reading, `summary.md` a table of what was found, `tests.xml` the tests,
and `log.txt` what all of it said. The exit code is 1 where a step failed; what was cut or cannot be
done is no failure. On a simulated card (`hybridlab simulate --card h100 python -m
benchmarks.gpu_check`) it is a rehearsal: bytes are compared, times are not kept.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks.gpu_check.machine import Machine
from benchmarks.gpu_check.steps import STEPS, Check
from hybridlab.errors import HybridlabError, ParameterError

BUDGET_S = 480.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a new folder (default: under outputs/)")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="seconds for all steps")
    parser.add_argument("--only", default="", help=f"steps by name: {','.join(STEPS)}")
    options = parser.parse_args()
    began = time.monotonic()
    # a shell lets its background jobs ignore Ctrl-C, by which a step is told that its time is over
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        steps = chosen(options.only)
        machine = Machine.here()
        output = new_folder(options.output)
    except HybridlabError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory(prefix="hybridlab-check-") as scratch:
        check = Check(
            machine,
            output,
            Path(scratch),
            ends_s=began + options.budget_s,
            slowness=max(1.0, options.budget_s / BUDGET_S),
        )
        for name in steps:
            print(f"{name}: {STEPS[name].question}", flush=True)
            done = check.run(STEPS[name])
            print(f"  {done.status} in {done.seconds:.0f} s. {done.finding} {done.reason}".rstrip())
    print(f"summary: {output / 'summary.md'}")
    return int(check.failed)


def chosen(only: str) -> list[str]:
    names = [name.strip() for name in only.split(",") if name.strip()] or list(STEPS)
    for name in names:
        if name not in STEPS:
            raise ParameterError.unknown_name("step", name, STEPS)
    return names


def new_folder(given: Path | None) -> Path:
    output = given or Path("outputs") / f"gpu-check-{datetime.now():%Y%m%d-%H%M%S}"
    if output.is_dir() and any(output.iterdir()):
        raise ParameterError(f"{output} holds something already; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    return output.absolute()


if __name__ == "__main__":
    sys.exit(main())
