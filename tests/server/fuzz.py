"""What `/openapi.json` allows and forbids, sent by schemathesis to a server.

python -m tests.server.fuzz --examples 2000 --seed 1      # over models without weights
python -m tests.server.fuzz --url http://127.0.0.1:8000   # a server that runs already
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import schemathesis
import typer
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner
from hypothesis import strategies as st
from schemathesis import Case, HookContext
from schemathesis.cli import schemathesis as command
from schemathesis.transport.serialization import Binary

from tests.server.conftest import TOKEN
from tests.server.live import live, wav

CONFIG = Path(__file__).with_name("schemathesis.toml")


SOUNDS = st.sampled_from([wav(seconds) for seconds in (0.1, 0.12)])
ENCODED = SOUNDS.map(lambda sound: base64.b64encode(sound).decode())
#: For a description that allows any text, names of models are all alike: most of them are known.
SPEECH = ("/v1/audio/transcriptions", "/v1/audio/translations")
MODELS = dict.fromkeys(SPEECH, "whisper-1") | {"/v1/chat/completions": "voxtral-pocket"}

FORMS = (*SPEECH, "/v1/hybrid")


@schemathesis.hook
def filter_case(_: HookContext, case: Case) -> bool:
    """A form is text: whatever is in the place of a text is one, alone too a list of one, and a
    list is its field again and again, or none; an empty one is as one left out."""
    if case.path not in FORMS or not isinstance(case.body, dict):
        return True
    asked = case.body.get("question", [])
    return (
        isinstance(asked, list)
        and all(isinstance(text, str) for text in asked)
        and not any(_vanishes(case.body.get(name)) for name in ("max_tokens", "stream"))
    )


def _vanishes(value: object) -> bool:
    return value == "" or isinstance(value, list)


@schemathesis.hook
def map_case(_: HookContext, case: Case) -> Case:
    """Names that are served, and of what is allowed that which makes sense: no schema can tell that
    there must be one audio in all messages."""
    body = case.body  # changed in place: what is set anew is taken for something forbidden
    allowed = case.meta.generation.mode.is_positive  # asked later, it were of what is changed
    if isinstance(body, dict) and case.path in MODELS and _to_be_served(body.get("model")):
        body["model"] = MODELS[case.path]
    if case.path == "/v1/chat/completions" and allowed:
        _make_sense(body)
    if case.path in SPEECH and allowed:
        _make_fields_go_together(body)
    return case


def _to_be_served(name: Any) -> bool:
    """Also what /v1/models has told, of which the ASR answers no questions."""
    return isinstance(name, str) and (len(name) % 4 != 0 or name.startswith("whisper"))


def _make_sense(body: dict[str, Any]) -> None:
    for message in body["messages"]:
        if isinstance(message.get("content"), list):
            message["content"] = [p for p in message["content"] if p["type"] == "text"]
    sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(0.1)).decode()}}
    body["messages"][0] |= {"content": [sound, {"type": "text", "text": "Who?"}]}
    if not body.get("stream"):
        body.pop("stream_options", None)


def _make_fields_go_together(body: dict[str, Any]) -> None:
    """Words are told in one format, and subtitles are not streamed."""
    if any("word" in body.get(f"timestamp_granularities{end}", []) for end in ("", "[]")):
        body["response_format"] = "verbose_json"
    elif body.get("stream") and body.get("response_format") in ("srt", "vtt"):
        body["response_format"] = "json"


@dataclass
class Served:
    url: str
    #: How often each route answered with each status.
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)


@contextmanager
def served() -> Iterator[Served]:
    """A server over models without weights, which asks for `TOKEN`, in a thread of this process."""
    with tempfile.NamedTemporaryFile("w") as token:
        token.write(TOKEN)
        token.flush()
        running = live(token_file=token.name)
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(running) as server,
        ):
            found = Served(f"http://127.0.0.1:{server.port}")
            server.guard.on_done = lambda route, status, _: found.answers.update([(route, status)])
            yield found


@dataclass(frozen=True)
class Found:
    """What schemathesis says, and how many requests it made."""

    ok: bool
    requests: int
    told: str


def fuzz(url: str, *, token: str, examples: int, seed: int) -> Found:
    """Send to all routes; `examples`: at most so many of a kind to each."""
    # where the description says that a file is meant, one that can be decoded is allowed
    schemathesis.openapi.format("binary", SOUNDS.map(Binary))
    schemathesis.openapi.format("byte", ENCODED)
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
                "--generation-database=none",
                "--report=json",
                f"--report-json-path={report}",
                f"--header=Authorization: Bearer {token}",
            ],
        )
        counted = json.loads(report.read_text())["test_cases"] if report.exists() else {}
    return Found(said.exit_code == 0, counted.get("generated", 0), said.output)


def main(
    url: Annotated[str, typer.Option(help="Of a server that runs already.")] = "",
    examples: Annotated[int, typer.Option(help="At most so many of a kind to each route.")] = 100,
    seed: int = 0,
    token: str = TOKEN,
) -> None:
    """Prints what was found; exit status 1 where something was."""
    if url:
        found = fuzz(url, token=token, examples=examples, seed=seed)
    else:
        with served() as server:
            found = fuzz(server.url, token=TOKEN, examples=examples, seed=seed)
    print(found.told)
    print(f"{found.requests} requests")
    raise typer.Exit(not found.ok)


if __name__ == "__main__":
    typer.run(main)
