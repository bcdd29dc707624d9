"""What `/openapi.json` allows and forbids, sent by schemathesis to a server or a gateway.

python -m tests.serve.fuzz http://127.0.0.1:8000 --examples 2000 --seed 1
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import schemathesis
import typer
from click.testing import CliRunner
from hypothesis import strategies as st
from schemathesis.cli import schemathesis as command
from schemathesis.transport.serialization import Binary

from tests.serve.test_routes import wav

CONFIG = Path(__file__).with_name("schemathesis.toml")
SOUNDS = [wav(seconds) for seconds in (0.1, 1.0, 40.0)]


@dataclass(frozen=True)
class Found:
    """What schemathesis says, and how many requests it made."""

    ok: bool
    requests: int
    told: str


def fuzz(url: str, *options: str, token: str = "", examples: int, seed: int) -> Found:
    """Send to all routes; `examples`: at most so many of a kind to each."""
    # where the description says that a file is meant, one that can be decoded is allowed
    schemathesis.openapi.format("binary", st.sampled_from(SOUNDS).map(Binary))
    schemathesis.openapi.format(
        "byte", st.sampled_from([base64.b64encode(sound).decode() for sound in SOUNDS])
    )
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        said = CliRunner().invoke(
            command,
            [
                f"--config-file={CONFIG}",
                "run",
                f"{url}/openapi.json",
                f"--max-examples={examples}",
                f"--seed={seed}",
                "--generation-deterministic",
                "--report=json",
                f"--report-json-path={report}",
                *(["-H", f"Authorization: Bearer {token}"] if token else []),
                *options,
            ],
        )
        counted = json.loads(report.read_text())["test_cases"] if report.exists() else {}
    return Found(said.exit_code == 0, counted.get("generated", 0), said.output)


def main(
    url: str,
    examples: Annotated[int, typer.Option(help="At most so many to each route.")] = 100,
    seed: int = 0,
    token: str = "",
    option: Annotated[Sequence[str], typer.Option(help="Passed on to schemathesis.")] = (),
) -> None:
    """Prints what was found; exit status 1 where something was."""
    found = fuzz(url, *option, token=token, examples=examples, seed=seed)
    print(found.told)
    print(f"{found.requests} requests")
    raise typer.Exit(not found.ok)


if __name__ == "__main__":
    typer.run(main)
