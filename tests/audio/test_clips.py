"""A reader's own audio: folders and manifests of every making, and what is left out of them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridlab.audio import Clips, load_clips
from hybridlab.errors import AudioError
from tests.audio.encoding import by_av, by_sndfile, sine, written

GOOD = by_sndfile(sine(0.5))
M4A = by_av(sine(0.5, rate=44_100), "ipod", "aac", rate=44_100)
TEXT = "Grüße, naïve Leute – „ja“ für 5 €"


def loaded(folder: Path, name: str, data: bytes | str) -> Clips:
    """A manifest of this name and content beside a.wav and sub/b.m4a."""
    written(folder, "a.wav", GOOD)
    written(folder, "sub/b.m4a", M4A)
    path = written(folder, name, data.encode() if isinstance(data, str) else data)
    return load_clips(str(path))


# ---------------------------------------------------------------------------------- single files


@pytest.mark.parametrize("name", ["plain.wav", "Grüße mit Leerzeichen.m4a", "no-suffix"])
def test_a_single_file_is_a_clip(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, M4A if name.endswith("m4a") else GOOD)
    (clip,) = load_clips(str(path))
    assert (clip.id, clip.path) == (path.stem, path)
    assert clip.audio_s == pytest.approx(0.5, abs=0.1)


def test_a_single_file_that_is_no_audio_is_refused_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "table.xlsx", b"PK\x03\x04" + bytes(500))
    with pytest.raises(AudioError, match=r"^table\.xlsx cannot be decoded as audio"):
        load_clips(str(path))
    with pytest.raises(AudioError, match="does not exist"):
        load_clips(str(tmp_path / "none.wav"))


# --------------------------------------------------------------------------------------- folders


def test_a_folder_is_read_with_all_below_it(tmp_path: Path) -> None:
    for name in ("a.wav", "b.M4A", "deep/er/c.wav", "deep/d.wav"):
        written(tmp_path, name, M4A if name.lower().endswith("m4a") else GOOD)
    for name in ("._a.wav", ".DS_Store", ".hidden/e.wav", "__MACOSX/a.wav", "deep/._d.wav"):
        written(tmp_path, name, b"shadow")
    clips = load_clips(str(tmp_path))
    assert [clip.id for clip in clips] == ["a", "b", "d", "c"]
    assert clips.left_out == ()


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    written(tmp_path, "x/a.wav", GOOD)
    (tmp_path / "x" / "again").symlink_to(tmp_path)
    (elsewhere := tmp_path.parent / f"{tmp_path.name}-elsewhere").mkdir()
    written(elsewhere, "b.wav", GOOD)
    (tmp_path / "linked").symlink_to(elsewhere)
    assert [clip.id for clip in load_clips(str(tmp_path))] == ["b", "a"]


def test_files_of_one_name_get_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "one/b.wav", "two/b.wav", "c.wav", "c.wav.ogg", "three/c.wav"):
        form = {"flac": "FLAC", "ogg": "OGG"}.get(name.rsplit(".", 1)[1], "WAV")
        written(tmp_path, name, by_sndfile(sine(0.5), form=form))
    ids = {
        clip.path.relative_to(tmp_path).as_posix(): clip.id for clip in load_clips(str(tmp_path))
    }
    assert ids["a.wav"] == "a.wav"
    assert ids["a.flac"] == "a.flac"
    assert (ids["one/b.wav"], ids["two/b.wav"]) == ("one/b", "two/b")
    assert ids["three/c.wav"] == "three/c"
    assert len(set(ids.values())) == 7


def test_what_cannot_be_used_is_left_out_and_listed(tmp_path: Path) -> None:
    written(tmp_path, "a.wav", GOOD)
    written(tmp_path, "b.m4a", M4A)
    written(tmp_path, "sub/broken.mp3", b"no audio" * 100)
    written(tmp_path, "quiet.wav", by_sndfile(np.zeros(8_000)))
    written(tmp_path, "short.wav", by_sndfile(sine(0.05)))
    written(tmp_path, "film.mp4", by_av(sine(), "mp4", "aac", film="mpeg4", tracks=0))
    written(tmp_path, "telephone.g722", b"\x12\x34" * 4000)
    written(tmp_path, "notes.txt", b"hello")
    written(tmp_path, "more.txt", b"hello")
    written(tmp_path, "photo.jpg", b"\xff\xd8")
    written(tmp_path, "who.csv", b"path\na.wav\n")
    clips = load_clips(str(tmp_path))
    assert [clip.id for clip in clips] == ["a", "b"]
    said = "\n".join(clips.left_out)
    for part in (
        "sub/broken.mp3 cannot be decoded as audio",
        "quiet.wav is silent",
        "short.wav lasts 0.05 s, too short",
        "film.mp4 has no sound in it",
        "telephone.g722 cannot be decoded as audio",
        "3 files without audio (2 .txt, 1 .jpg)",
        "who.csv: a table is read where it is named itself",
    ):
        assert part in said
    assert len(clips.left_out) == 7
    assert all("\n" not in line for line in clips.left_out)


def test_not_more_than_a_screen_of_lines_is_shown(tmp_path: Path) -> None:
    written(tmp_path, "a.wav", GOOD)
    for index in range(40):
        written(tmp_path, f"bad-{index:02}.wav", b"x")
    clips = load_clips(str(tmp_path))
    assert len(clips.left_out) == 40
    assert len(clips.left_out_lines()) == 11
    assert clips.left_out_lines()[-1] == "and 30 more"


def test_where_nothing_can_be_used_the_first_reasons_are_told(tmp_path: Path) -> None:
    for index in range(6):
        written(tmp_path, f"bad-{index}.wav", b"x" * 50)
    with pytest.raises(AudioError) as caught:
        load_clips(str(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"no audio of {tmp_path} can be used: bad-0.wav cannot be decoded")
    assert message.endswith("and 3 more")
    assert "\n" not in message


def test_a_folder_without_audio_says_what_it_holds(tmp_path: Path) -> None:
    written(tmp_path, "a.txt", b"x")
    with pytest.raises(AudioError, match=r"holds no audio .*; 1 file without audio \(1 \.txt\)"):
        load_clips(str(tmp_path))


# ------------------------------------------------------------------------------------- data sets


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_an_audio_folder_of_hugging_face(tmp_path: Path, name: str) -> None:
    for part in ("train", "test"):
        written(tmp_path, f"data/{part}/x.wav", GOOD)
        row = {"file_name": "x.wav", "transcription": f"of {part}"}
        text = f"file_name,transcription\nx.wav,of {part}\n" if name.endswith("csv") else None
        written(tmp_path, f"data/{part}/{name}", (text or json.dumps(row)).encode())
    written(tmp_path, "data/test/extra.wav", GOOD)
    clips = load_clips(str(tmp_path))
    assert {clip.text for clip in clips} == {"of train", "of test"}
    assert len({clip.id for clip in clips}) == 2
    assert clips.left_out == (f"1 audio file not listed in data/test/{name} and data/train/{name}",)


def test_common_voice(tmp_path: Path) -> None:
    mp3 = by_sndfile(sine(0.5), form="MP3")
    for name in ("one", "two", "three"):
        written(tmp_path, f"clips/{name}.mp3", mp3)
    head = "client_id\tpath\tsentence\tup_votes\n"
    rows = 'c\tone.mp3\t"Wait, he said.\t2\nc\ttwo.mp3\tAnd "so" on\t2\n'
    written(tmp_path, "test.tsv", (head + rows).encode())
    written(tmp_path, "train.tsv", (head + "c\tthree.mp3\tYes\t2\n").encode())
    for source in (tmp_path, tmp_path / "test.tsv"):
        clips = load_clips(str(source))
        assert [clip.text for clip in clips] == ['"Wait, he said.', 'And "so" on']
    assert load_clips(str(tmp_path)).left_out == ("1 audio file not listed in test.tsv",)
    assert load_clips(str(tmp_path / "train.tsv"))[0].text == "Yes"


def test_a_table_that_is_nobody_s_is_no_manifest(tmp_path: Path) -> None:
    written(tmp_path, "a.wav", GOOD)
    written(tmp_path, "train.tsv", b"word\tcount\nthe\t5\n")
    clips = load_clips(str(tmp_path))
    assert [clip.id for clip in clips] == ["a"]
    assert clips.left_out == ("train.tsv: a table is read where it is named itself",)


def test_a_piece_of_a_longer_file_is_no_clip(tmp_path: Path) -> None:
    rows = [{"audio_filepath": "a.wav", "offset": 0.0, "duration": 0.5, "text": "all"}]
    rows.append({"audio_filepath": "sub/b.m4a", "offset": 3.5, "duration": 0.5, "text": "piece"})
    clips = loaded(tmp_path, "nemo.json", "\n".join(map(json.dumps, rows)))
    assert [clip.text for clip in clips] == ["all"]
    assert clips.left_out == (
        "nemo.json, line 2 is a piece of a file (offset); cut the file into pieces",
    )


# ------------------------------------------------------------------------------------- manifests


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_tables_of_every_encoding_and_delimiter(
    tmp_path: Path, encoding: str, delimiter: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [["path", "text"], ["a.wav", f'"{TEXT}"'], ["", ""], ["sub/b.m4a", "two"], []]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    name = "x.tsv" if delimiter == "\t" else "x.csv"
    with caplog.at_level(logging.WARNING, logger="hybridlab.audio"):
        clips = loaded(tmp_path, name, text.encode(encoding))
    assert [(clip.id, clip.text) for clip in clips] == [("a", TEXT), ("b", "two")]
    assert ("Windows-1252" in caplog.text) == (encoding == "cp1252")


@pytest.mark.parametrize("path", ["path", "File", "FILE_NAME", "filename", "audio", " Wav "])
@pytest.mark.parametrize("text", ["text", "Transcription", "transcript", "Sentence", "REFERENCE"])
def test_usual_names_of_columns(tmp_path: Path, path: str, text: str) -> None:
    (clip,) = loaded(tmp_path, "x.csv", f"{path},duration,{text}\na.wav,0.5,hello\n")
    assert (clip.path, clip.text) == (tmp_path / "a.wav", "hello")


def test_excel_s_own_line_and_a_windows_path(tmp_path: Path) -> None:
    (clip,) = loaded(tmp_path, "x.csv", "sep=;\r\nPath;Text\r\nsub\\b.m4a;hello\r\n;\r\n")
    assert (clip.path, clip.text) == (tmp_path / "sub" / "b.m4a", "hello")


@pytest.mark.parametrize(
    "wrapped",
    [lambda rows: rows, lambda rows: {"data": rows}, lambda rows: {"version": "1", "data": rows}],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_as_a_list_and_under_data(tmp_path: Path, wrapped: Any, indent: int | None) -> None:
    rows = [{"path": "a.wav", "text": TEXT}, {"Audio": {"path": "sub/b.m4a"}, "sentence": 5}]
    clips = loaded(tmp_path, "x.json", json.dumps(wrapped(rows), indent=indent))
    assert [(clip.id, clip.text) for clip in clips] == [("a", TEXT), ("b", "5")]


def test_questions_of_a_row(tmp_path: Path) -> None:
    asked = [{"question": "Who?", "answer": "I", "kind": "who"}, {"question": "Why?"}]
    rows = [{"path": "a.wav", "questions": asked, "question": "What?"}]
    rows.append({"path": "sub/b.m4a", "questions": "Who?"})
    clips = loaded(tmp_path, "x.jsonl", "\n".join(map(json.dumps, rows)))
    assert [(q.text, q.answer, q.kind) for q in clips[0].questions] == [
        *[("Who?", "I", "who"), ("Why?", None, ""), ("What?", None, "")]
    ]
    assert clips.left_out == (
        "x.jsonl, line 2: questions is no list of objects with question and answer; mend it",
    )


def test_rows_that_cannot_be_used_are_left_out_and_listed(tmp_path: Path) -> None:
    clips = loaded(tmp_path, "x.csv", "path,text\na.wav,one\n,two\nnone.wav,three\n")
    assert [clip.text for clip in clips] == ["one"]
    assert clips.left_out == (
        "x.csv, line 3 is without a path",
        "audio file 'none.wav' does not exist",
    )


def test_the_same_file_twice_is_two_clips_and_the_same_id_twice_a_mistake(tmp_path: Path) -> None:
    clips = loaded(tmp_path, "x.csv", "path,question\na.wav,Who?\na.wav,Why?\n")
    assert [clip.id for clip in clips] == ["a.wav-1", "a.wav-2"]
    taken = loaded(tmp_path, "x.csv", "id,path\na,sub/b.m4a\n,a.wav\n")
    assert [clip.id for clip in taken] == ["a", "a.wav"]
    with pytest.raises(AudioError, match="names the id 'a' 2 times; ids must differ"):
        loaded(tmp_path, "x.csv", "id,path\na,a.wav\na,sub/b.m4a\n")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.csv", "path,text\na.wav,one, two\na.wav,x\n", "x.csv, line 2 has more cells than"),
        ("x.jsonl", '{"path": "a.wav"}\nnonsense\n', "x.jsonl, line 2 is not JSON: Expecting"),
        ("x.json", '[null, {"path": "a.wav"}]', "x.json, row 1 must be an object with a path"),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out_by_its_line(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    clips = loaded(tmp_path, name, content)
    assert [clip.id for clip in clips] == ["a"]
    (line,) = clips.left_out
    assert line.startswith(reason)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "\n \npath;text\na.wav;x\n"),
        ("x.csv", "sep=;\n\npath;text\na.wav;x\n"),
        ("x.json", '{"version": 1, "clips": [{"path": "a.wav", "text": "x"}], "tags": []}'),
        ("x.csv", "wav_filename,transcript\na.wav,x\n"),
        ("x.csv", "audio_path\tnormalized_text\na.wav\tx\n"),
    ],
)
def test_what_stands_around_a_list_is_passed_over(tmp_path: Path, name: str, content: str) -> None:
    assert [(clip.id, clip.text) for clip in loaded(tmp_path, name, content)] == [("a", "x")]


def test_a_list_of_paths_alone(tmp_path: Path) -> None:
    assert [clip.id for clip in loaded(tmp_path, "x.json", '["a.wav"]')] == ["a"]


def test_accents_as_macos_writes_them_find_the_file(tmp_path: Path) -> None:
    written(tmp_path, "\u00fc.wav", by_sndfile(sine(1.0)))
    (clip,) = loaded(tmp_path, "x.csv", "path\nu\u0308.wav\n")
    assert clip.path.name == "\u00fc.wav"


@pytest.mark.parametrize("name", [b"lat\xe9n.wav", b"two\nlines.wav"])
def test_names_that_no_line_can_hold(tmp_path: Path, name: bytes) -> None:
    """Not UTF-8, as of an old archive, and one with a line's end."""
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(by_sndfile(sine(1.0)))
    (clip,) = load_clips(str(tmp_path))
    assert clip.id.isprintable() and clip.samples().size == 16_000
    path.write_bytes(b"")
    with pytest.raises(AudioError, match=r"is empty \(0 bytes\)") as caught:
        load_clips(str(tmp_path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a.wav;hello\n", "no column for the file in its first line, 'a.wav;hello'; call"),
        ("x.csv", "path,text\na.wav,one, two\n", "line 2 has more cells than the header"),
        ("x.csv", "path,text\n", "lists no clips"),
        ("x.csv", "", "lists no clips"),
        ("x.csv", b"path\n\x81\x8d.wav\n", "text of an unknown encoding; save it as UTF-8"),
        ("x.json", "[]", "lists no clips"),
        ("x.json", "[1]", "row 1 must be an object with a path"),
        ("x.json", '{"path": "a.wav"\n', "line 1 is not JSON"),
        ("x.json", '{"text": "a"}', "row 1 is without a path"),
        ("x.csv", "path\n" + "x" * 300 + ".wav\n", "cannot be opened .File name too long"),
        ("x.json", "3", "must be an object"),
        ("x.json", "[" * 100_000, "nested too deep"),
        ("x.csv", 'path,text\na.wav,one\na.wav,"two\na.wav,x\n', "line 3 opens a quotation mark"),
    ],
)
def test_manifests_that_are_none(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        loaded(tmp_path, name, content)
    assert "\n" not in str(caught.value)
