"""Requests that are made to harm: each is refused in one line, and the next one is served."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from benchmarks.endurance.hostile import GOOD, claiming, encoded, near_silence, tone
from hybridlab.errors import AudioError
from hybridlab.server.audio_decoder import decode_audio
from hybridlab.server.errors import ApiError
from tests.server.fakes import play, played
from tests.server.live import (
    CHAT,
    FORM,
    HYBRID,
    JSON,
    TRANSCRIPTIONS,
    form,
    head,
    live,
    message,
    part,
    question,
    wav,
)


def chat(**more: Any) -> bytes:
    return json.dumps(question("Who?", **more)).encode()


def chat_with(old: str, new: str) -> bytes:
    """A question in which this text stands in place of that."""
    body = chat(max_tokens=7)
    assert old.encode() in body
    return body.replace(old.encode(), new.encode())


def audio_said(data: Any) -> bytes:
    body = question("Who?")
    body["messages"][0]["content"][0]["input_audio"] = data
    return json.dumps(body).encode()


FIELDS = {"model": "whisper-1"}
CHATS = {
    "no object": b"[]",
    "an object without an end": b"{",
    "nested lists": b"[" * 200_000 + b"]" * 200_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested in a message": chat_with('"Who?"', "[" * 900 + "]" * 900),
    "a number of a million digits": chat_with(": 7", ": " + "9" * 10**6),
    "not a number": chat_with(": 7", ": NaN"),
    "infinite": chat_with(": 7", ": Infinity"),
    "a negative count": chat(max_tokens=-1),
    "a count that is true": chat(max_tokens=True),
    "not UTF-8": chat_with("Who?", "Who").replace(b"Who", b"\xff\xfe\xfa"),
    "half a character": chat_with("Who?", "\\ud800"),
    "base64 with a stray sign": audio_said({"data": "UklG*!"}),
    "base64 that is not ASCII": audio_said({"data": "ÜklGRg=="}),
    "base64 cut short": audio_said({"data": "UklGR"}),
    "base64 of nothing": audio_said({"data": ""}),
    "audio that is a number": audio_said({"data": 12}),
    "audio that is a path": audio_said({"data": "/etc/passwd"}),
    "audio that is an address": audio_said({"url": "http://127.0.0.1:1/a.wav"}),
    "audio that is a list": audio_said([1, 2]),
}
END = b"--b--\r\n"
FORMS = {
    "no end": form(**FIELDS)[:-200],
    "a part without a name": b"--b\r\n\r\nx\r\n" + END,
    "two files": part("file", wav(), '; filename="b"') + form(**FIELDS),
    "a file that is a field": part("model", b"whisper-1") + part("file", b"/etc/passwd") + END,
    "thousands of fields": b"".join(part(f"f{n}", b"x") for n in range(5000)) + form(**FIELDS),
    "thousands of files": part("file", b"x", '; filename="a"') * 5000 + END,
    "a field of megabytes": form(model="w" * 3 * 10**6),
    "no model": form(),
    "no file": part("model", b"whisper-1") + END,
    "no audio": part("model", b"whisper-1") + part("file", b"no audio", '; filename="a"') + END,
    "a prompt for the LLM": form(model="voxtral", prompt="hello"),
    "a temperature that is none": form(**FIELDS, temperature="warm"),
    "a temperature that is no number": form(**FIELDS, temperature="nan"),
    "a temperature above one": form(**FIELDS, temperature="1.01"),
    "a part of a file without a filename": part("model", b"whisper-1") + part("file", wav()) + END,
    "a format that is none": form(**FIELDS, response_format="xml"),
    "a language that is none": form(**FIELDS, language="klingon"),
    "a language with a NUL": form(**FIELDS, language="en\0"),
    "a language of another script": form(**FIELDS, language="еп"),
    "a format that is a path": form(**FIELDS, response_format="../../etc/passwd"),
    "a count of thousands of digits": form(**FIELDS, max_tokens="9" * 5000),
}
#: Path, bytes and content type on the wire; each gets 400, with OpenAI's error.
BODIES: dict[str, tuple[str, bytes, str]] = {
    **{name: (CHAT, body, JSON) for name, body in CHATS.items()},
    **{name: (TRANSCRIPTIONS, body, FORM) for name, body in FORMS.items()},
    "a form for JSON": (CHAT, form(**FIELDS), FORM),
    "JSON for a form": (TRANSCRIPTIONS, chat(), JSON),
    "no boundary": (TRANSCRIPTIONS, form(**FIELDS), "Content-Type: multipart/form-data"),
    "another boundary": (TRANSCRIPTIONS, form(**FIELDS), FORM + "c"),
    "an empty question": (HYBRID, form(question=" "), FORM),
    "more questions than can wait": (HYBRID, part("question", b"Who?") * 70 + form(), FORM),
}


#: What the refusal says of some of them.
WHY = {
    "no object": "must be an object as application/json",
    "an object without an end": "must be an object as application/json",
    "nested lists": "parsing the body",
    "no audio": "cannot be decoded as audio",
    "a part of a file without a filename": "file: this is a field of text; send the audio as a",
    "a prompt for the LLM": "prompt: voxtral-pocket takes none",
    "a temperature that is none": "temperature: Input should be a valid number",
}
CHUNKED = "Transfer-Encoding: chunked"
#: Lines of a head, what follows, and the status that it gets, if in plain text.
MALFORMED: list[tuple[tuple[str, ...], bytes, int]] = [
    ((CHUNKED,), b"F" * 30 + b"\r\nabc", 400),
    ((CHUNKED,), b"-5\r\nabcde\r\n0\r\n\r\n", 400),
    ((CHUNKED,), b"xyz\r\n", 400),
    ((CHUNKED,), b"FFFFFFFFFFFFFFF\r\n" + b"a" * 5 * 10**6, 413),
    (("Transfer-Encoding: gzip, chunked",), b"0\r\n\r\n", 400),
    (("Content-Length: -1",), b"", 400),
    (("Content-Length: 5", "Content-Length: 6"), b"abcdef", 400),
    (("Content-Length: " + "9" * 30,), b"", 400),
    (("Content-Length: 99999999999",), b"", 413),
    (("X-A: " + "a" * 200_000,), b"", 400),
    (("X-A: a\0b",), b"", 400),
    (("no colon",), b"", 400),
]
#: Names of files, which are not looked at.
NAMES = ("../../etc/passwd", "http://127.0.0.1:1/a.wav", "a\0.wav", "é" * 999)


def named(name: str) -> bytes:
    body = part("model", b"whisper-1") + part("file", wav(), f'; filename="{name}"') + END
    return message(TRANSCRIPTIONS, body, FORM)


SENT: dict[str, tuple[bytes, int]] = {
    **{name: (message(*sent), 400) for name, sent in BODIES.items()},
    **{
        f"{n}: {lines[0][:30]}": (head(CHAT, *lines) + body, status)
        for n, (lines, body, status) in enumerate(MALFORMED)
    },
    **{f"a file called {name[:30]!r}": (named(name), 200) for name in NAMES},
}


@pytest.fixture(scope="module")
def answers() -> dict[str, bytes]:
    """What all of it gets of one server, which serves after each and keeps nothing of it."""
    found: dict[str, bytes] = {}

    async def scene() -> None:
        async with live(max_upload_mb=3) as server:
            before = server.held()
            for name, (data, _) in SENT.items():
                found[name] = await server.exchange(data)
                assert (await server.ask()).status_code == 200, name
            await server.settles(before)

    play(scene)
    return found


@pytest.mark.parametrize("name", SENT)
def test_what_is_made_to_harm_is_refused_in_one_line(answers: dict[str, bytes], name: str) -> None:
    top, _, body = answers[name].partition(b"\r\n\r\n")
    assert top.split(b" ", 2)[1] == str(SENT[name][1]).encode(), answers[name][:400]
    if name in BODIES:
        error = json.loads(body)["error"]
        assert error["type"] == "invalid_request_error"
        assert 0 < len(error["message"]) < 300
        assert "\n" not in error["message"]
        assert "root:" not in error["message"]
        assert WHY.get(name, "") in error["message"]


@played
async def test_a_refused_upload_leaves_its_connection_in_order() -> None:
    """The rest of its body is no request."""
    async with live(max_upload_mb=0.4) as server:
        for _ in range(2):
            refused = await server.client.post(CHAT, content=b"GET / HTTP/1.1\r\n\r\n" * 10**5)
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                413,
                "upload_too_large",
            )
            assert (await server.client.post(CHAT, json=question())).status_code == 200


@played
async def test_of_two_lengths_the_chunked_one_holds_and_nothing_is_smuggled_behind_it() -> None:
    async with live() as server:
        body = chat()
        lengths = ("Content-Length: 4", "Transfer-Encoding: chunked", JSON)
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        said = await server.exchange(head(CHAT, *lengths, "Connection: close"), chunked)
        assert said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400")), said[:200]
        assert said.count(b"HTTP/1.1 ") == 1


@played
async def test_enormous_counts_of_tokens_are_bounded_or_refused() -> None:
    async with live() as server:
        for most in (10**9, 10**30):
            assert (await server.ask(max_tokens=most)).status_code == 200
            for model in ("whisper-1", "voxtral"):
                body = form(model=model, max_tokens=str(most))
                said = await server.exchange(message(TRANSCRIPTIONS, body, FORM))
                assert said.split(b" ", 2)[1] in (b"200", b"400", b"413"), said[:300]


@played
async def test_a_question_may_hold_any_character() -> None:
    async with live() as server:
        for text in ("a\0b", "\u202egnirts", "𝄞 \\u0000 \x7f", "e\u0301" * 50):
            said = (await server.ask(text)).json()
            assert said["choices"][0]["message"]["content"] == f"said {text}"


# ------------------------------------------------------------------------------------ audio


def header_says(data: bytes, offset: int, form_: str, value: int) -> bytes:
    found = bytearray(data)
    struct.pack_into(form_, found, offset, value)
    return bytes(found)


RF64 = encoded(tone(1.0), form="RF64")
SILENCE = np.zeros(1800 * 8000, np.int16)
AUDIO: dict[str, tuple[bytes, type[Exception]]] = {
    "an hour of silence after a click": (near_silence(1), ApiError),
    "half an hour of pure silence": (encoded(SILENCE, rate=8000, form="FLAC"), ApiError),
    "no channels": (header_says(GOOD, 22, "<H", 0), AudioError),
    "65535 channels": (header_says(GOOD, 22, "<H", 65535), AudioError),
    "4 GHz": (header_says(GOOD, 24, "<I", 0xFFFFFFFF), AudioError),
    "no bits a sample": (header_says(GOOD, 34, "<H", 0), AudioError),
    "a format of nobody": (header_says(GOOD, 20, "<H", 0xABCD), AudioError),
    "a header alone of RF64": (RF64[:80], AudioError),
    "FLAC without frames": (encoded(tone(1.0), form="FLAC")[:42], AudioError),
    "OGG cut in its head": (encoded(tone(1.0), form="OGG")[:90], AudioError),
}


@pytest.mark.parametrize("name", AUDIO)
def test_hostile_audio_is_refused_within_its_limit(name: str) -> None:
    data, error = AUDIO[name]
    assert len(data) < 10**6
    with pytest.raises(error) as caught:
        decode_audio(data, 60.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (RF64, 1.0),
        (header_says(RF64, RF64.index(b"ds64") + 16, "<Q", 2**62), 1.0),  # size of the samples
        (header_says(GOOD, 4, "<I", 0), 1.0),  # size of the file
        (GOOD[:-8000], 0.75),
        (claiming(encoded(tone(1.0), form="FLAC"), 0), 1.0),
        (encoded(tone(4.0), form="FLAC")[:-2000], None),
    ],
    ids=[
        "RF64",
        "RF64 that lies",
        "a size of nothing",
        "a cut WAV",
        "a FLAC of no said length",
        "a cut FLAC",
    ],
)
def test_what_can_be_heard_of_a_damaged_file_is_no_more_than_what_is_there(
    data: bytes, seconds: float | None
) -> None:
    try:
        found = decode_audio(data, 60.0)
    except AudioError as error:
        assert seconds is None, error
    else:
        assert found.seconds <= (seconds or 4.0) + 0.1
        assert np.isfinite(found.samples).all()
