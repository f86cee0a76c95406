"""JSON from outside: what is read, and the one sentence about everything else."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.files import locate, whole_records
from sgsd_lightning.texts.strict_json import (
    MAX_DEPTH,
    MalformedTextError,
    parse_json,
    read_json,
    read_json_lines,
    read_text,
)

GOOD = b'{"a": 1}'
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, st.booleans())
def test_what_is_json_is_read_as_python_reads_it(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text) == json.loads(text) == value


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("0.1234567890123456789", None),
        ("12345678901234567890.5", None),
        ("-0.00001", None),
        ("10000000000000000.0", None),
        ("1.00000000000000000001e2", None),
        ("1e-99999999999999999999", None),
        ("0.50", "0.5"),
        ("3.0", "3.0"),
        ("1e5", "100000.0"),
    ],
)
def test_a_number_is_printed_with_every_digit_that_was_written(written: str, text: str | None) -> None:
    number = parse_json(written)
    assert str(number) == f"{number}" == (text or written)
    assert number == float(written)
    copy = pickle.loads(pickle.dumps(number))
    assert (copy, str(copy)) == (number, str(number))
    assert json.loads(json.dumps(number)) == number


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD,
        GOOD + b"\r\n" + GOOD + b"\r\n",
        b"\n\n" + GOOD + b"\n \n" + GOOD,
        '{"a": "one\u2028line"}\n{"a": "\U0001d538 \\ud835\\udd38"}'.encode(),
    ],
    ids=["byte order mark", "CRLF", "blank lines", "other line breaks and whole pairs"],
)
def test_lines_are_read_whatever_ends_them(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    assert len([record for _, record in read_json_lines(path)]) == 2
    assert len([record for _, record in whole_records(path)]) == 2


BAD_LINES = {
    "Latin-1": ('{"a": "café"}'.encode("latin-1"), r"not UTF-8 text \(byte 0xe9.*'é'.*save the file as UTF-8"),
    "Windows-1252": ('{"a": "“café”"}'.encode("cp1252"), r"byte 0x93, which Windows-1252 reads as '“'.*WINDOWS-1252"),
    "Shift-JIS": ('{"a": "日本の問題"}'.encode("shift-jis"), "byte 0x93, .*save the file as UTF-8"),
    "of no such encoding": (b'{"a": "\x81"}', "byte 0x81, of another encoding.*save the file as UTF-8"),
    "surrogate bytes": (b'{"a": "\xed\xa0\x80"}', "half of a surrogate pair, at byte 8.*write the whole character"),
    "surrogate escape": (b'{"a": [{"b": "x\\ud800"}]}', r"half of a surrogate pair in a\[0\]\.b .*write the whole"),
    "surrogate key": (b'{"\\udfff": 1}', "half of a surrogate pair"),
    "NUL byte": (b'{"a": "x\x00y"}', r"Invalid control character at at column 9\); write .*u0000"),
    "control byte": (b'{"a": "x\x01y"}', r"Invalid control character.*write .*u0001"),
    "5000 digits": (b'{"a": ' + b"9" * 5000 + b"}", r"a number of 5000 digits \(999999999999…\); write it as a text"),
    "negative digits": (b'{"a": -' + b"9" * 5000 + b"}", "a number of 5000 digits"),
    "huge float": (b'{"a": 1e999}', "the number 1e999 is too large"),
    "NaN": (b'{"a": NaN}', "NaN is no value of JSON; write null, or a text"),
    "Infinity": (b'{"a": -Infinity}', "-Infinity is no value of JSON"),
    "repeated key": (b'{"a": {"b": 1, "b": 2}}', "the key 'b' stands twice in the object .*remove one"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, f"more than {MAX_DEPTH} deep"),
    "rather deep": (b"[" * 70 + b"]" * 70, f"more than {MAX_DEPTH} deep"),
    "single backslashes": (b'{"a": "\\theta \\sqrt{2}"}', r"Invalid \\escape.*write each backslash twice"),
    "cut off": (b'{"a": "x', "not JSON .*one JSON object a line"),
    "array over lines": (b"[", "one JSON object a line, and no array"),
    "two on a line": (GOOD + GOOD, "Extra data at column 9.*one JSON object a line"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_one_sentence_with_file_line_and_remedy(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    with pytest.raises(MalformedTextError, match=rf"f\.jsonl:2: .*{message}") as caught:
        list(read_json_lines(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    with pytest.raises(MalformedTextError, match=rf"f\.jsonl:2: .*{message}"):
        list(whole_records(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("one\n".encode("utf-16"), "UTF-16 text, not UTF-8; save it as UTF-8"),
        ('{"problem": "one"}\n'.encode("utf-16-le"), "UTF-16 text"),
        ('{"problem": "one"}\n'.encode("utf-16-be"), "UTF-16 text"),
        ("one\n".encode("utf-32"), "UTF-32 text"),
        (b"\x1f\x8b\x08\x00", "a gzip archive; unpack it"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1\x15\x04", "a parquet file; read it with"),
    ],
)
def test_other_formats_are_told_by_how_they_begin(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    for read in (read_text, read_json, lambda path: list(read_json_lines(path))):
        with pytest.raises(MalformedTextError, match=rf"f\.jsonl:1: {message}"):
            read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"a":\nNaN}', r"f\.json:3: NaN"),
        ('{\n"a": ' + "7" * 5000 + "}", r"f\.json:2: a number of 5000 digits"),
        ('{\n"a": 1,\n}', r"f\.json: not JSON \(.* at line 3, column 1"),
        ("", r"f\.json: not JSON \(Expecting value at line 1, column 1"),
    ],
)
def test_a_document_names_the_line_too(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(MalformedTextError, match=message):
        read_json(tmp_path / "f.json")


def test_a_limit_stops_before_what_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(GOOD + b"\n\xff\xff\n")
    assert next(read_json_lines(path)) == (1, {"a": 1})


def test_files_of_packages_are_found_and_others_named(tmp_path: Path) -> None:
    assert locate("package://sgsd_lightning.starter/word_bank.json", "skill bank").is_file()
    for source, message in (
        ("package://sgsd_lightning.starter/no.json", r"skill bank package://.*has no file 'no\.json'"),
        ("package://no_such_package/no.json", "there is no package 'no_such_package'"),
        (str(tmp_path), "is a folder, not a file"),
        (str(tmp_path / "no.json"), r"skill bank .*no\.json does not exist"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            locate(source, "skill bank")
