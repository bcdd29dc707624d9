"""The official `openai` client against `hybridlab serve`, nothing changed but the address.

python examples/openai_client.py FILE [QUESTION]
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI


def main(path: Path, question: str = "What is said?") -> None:
    address = os.environ.get("HYBRIDLAB_URL", "http://127.0.0.1:8000")
    client = OpenAI(
        base_url=f"{address}/v1", api_key=os.environ.get("HYBRIDLAB_TOKEN") or "none", timeout=300
    )
    print("models:", ", ".join(model.id for model in client.models.list()))
    transcribe(client, path)
    ask(client, path, question)


def transcribe(client: OpenAI, path: Path) -> None:
    """The same transcript as a text, with its segments, and as subtitles."""
    text = client.audio.transcriptions.create(model="whisper-1", file=path)
    print("transcript:", text.text)
    verbose = client.audio.transcriptions.create(
        model="whisper-1", file=path, response_format="verbose_json"
    )
    for segment in verbose.segments or []:
        print(f"segment: {segment.start:.2f} to {segment.end:.2f} s: {segment.text}")
    srt = client.audio.transcriptions.create(model="whisper-1", file=path, response_format="srt")
    print(srt, end="")


def ask(client: OpenAI, path: Path, question: str) -> None:
    """A question about the sound: answered whole, then word by word, with the tokens at the end."""
    audio = {
        "data": base64.b64encode(path.read_bytes()).decode(),
        "format": path.suffix.lstrip("."),
    }
    content = [{"type": "input_audio", "input_audio": audio}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    whole = client.chat.completions.create(model="voxtral", messages=messages)
    print("answer:", whole.choices[0].message.content)
    print("streamed: ", end="")
    stream = client.chat.completions.create(
        model="voxtral",
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:  # the last chunk has none
            print(choice.delta.content or "", end="", flush=True)
        if (usage := chunk.usage) is not None:
            tokens = f"{usage.prompt_tokens} of the prompt, {usage.completion_tokens} of the answer"
            print(f"\ntokens: {tokens}")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: python examples/openai_client.py FILE [QUESTION]")
    main(Path(sys.argv[1]), *sys.argv[2:])
