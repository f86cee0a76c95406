"""JSON from outside: UTF-8 text and what the standard says, or one sentence with the file, the line and the remedy.

Python's own reader takes NaN, lets the last of two equal keys win, makes infinity of ``1e999``, and ends with errors of
its own at numbers of thousands of digits, deep nesting and halves of surrogate pairs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Self

MAX_DEPTH = 64
"""Lists and objects inside one another; problems, banks and samples have fewer than ten."""
MAX_DIGITS = 1000
"""Of one number; Python refuses to print those of more than 4300."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SIGNATURES = (
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"PAR1", "a parquet file", "read it with sgsd_lightning.data.DatasetProblems"),
    (b"\xff\xfe\x00\x00", "UTF-32 text, not UTF-8", "save it as UTF-8 (iconv -f UTF-32 -t UTF-8)"),
    (b"\x00\x00\xfe\xff", "UTF-32 text, not UTF-8", "save it as UTF-8 (iconv -f UTF-32 -t UTF-8)"),
    (b"\xff\xfe", "UTF-16 text, not UTF-8", "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\xfe\xff", "UTF-16 text, not UTF-8", "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
)
HEAD_BYTES = 4096
SURROGATE = re.compile("[\ud800-\udfff]")
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class MalformedTextError(ValueError):
    """What is wrong with a text, and where it stands.

    Args:
        where: the file; "" for none.
        line: the line, from 1; None for the file as a whole.
        what: what was found, and what would be right.
    """

    def __init__(self, where: str, line: int | None, what: str) -> None:
        self.what = what if line is None else f"{what} (line {line})"
        """Without the file's name."""
        place = where if line is None else f"{where}:{line}"
        super().__init__(f"{place}: {what}" if where else self.what)


class WrittenNumber(float):
    """A number of more digits than a float holds, whose text is the number as it was written."""

    spelling: str

    def __new__(cls, spelling: str | float) -> Self:
        number = super().__new__(cls, spelling)
        number.spelling = str(spelling)
        return number

    def __str__(self) -> str:
        return self.spelling


class _Refused(ValueError):
    """From within the parser, which knows no place but the characters that it stumbled over."""

    def __init__(self, message: str, characters: str = "") -> None:
        super().__init__(message)
        self.characters = characters


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark.

    Raises:
        MalformedTextError: naming the file, and the line where it is not UTF-8.
    """
    data = path.read_bytes()
    _refuse_other_formats(data[:HEAD_BYTES], str(path))
    return "\n".join(
        decode_line(line, str(path), number)
        for number, line in enumerate(data.removeprefix(BYTE_ORDER_MARK).split(b"\n"), start=1)
    )


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:
        MalformedTextError: naming the file and the line.
    """
    return parse_json(read_text(path), str(path))


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of each line that is not blank, from 1, and what it holds; read as they are asked for.

    Raises:
        MalformedTextError: naming the file and the line.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        _refuse_other_formats(head, str(path))
        file.seek(len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0)
        # by line feeds alone: a text may hold any other line break that Python knows
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, parse_line(line, str(path), number)


def parse_line(line: bytes, where: str, number: int) -> Any:
    """What one line of JSON Lines holds.

    Raises:
        MalformedTextError: naming ``where`` and the line.
    """
    if number == 1:
        line = line.removeprefix(BYTE_ORDER_MARK)
    return parse_json(decode_line(line, where, number).rstrip("\r\n"), where, number)


def decode_line(line: bytes, where: str, number: int) -> str:
    """The text of one line.

    Raises:
        MalformedTextError: naming ``where`` and the line, if it is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte, column = line[error.start], error.start + 1
        if byte == 0xED:
            found, remedy = "half of a surrogate pair", "write the whole character"
        else:
            found, encoding = _encoding_of(line, byte)
            remedy = f"save the file as UTF-8 (iconv -f {encoding} -t UTF-8, if that is what it is)"
        raise MalformedTextError(where, number, f"not UTF-8 text ({found}, at byte {column}); {remedy}") from None


def _encoding_of(line: bytes, byte: int) -> tuple[str, str]:
    """A byte as the likeliest single-byte encoding reads it, and that encoding's name for iconv."""
    # 0x80 to 0x9f are control characters in Latin-1, which no text holds
    is_latin1 = not any(0x80 <= each <= 0x9F for each in line)
    name, codec, encoding = (
        ("Latin-1", "latin-1", "LATIN1") if is_latin1 else ("Windows-1252", "cp1252", "WINDOWS-1252")
    )
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return f"byte 0x{byte:02x}, of another encoding, such as Shift-JIS or GB18030", "ITS_ENCODING"
    return f"byte 0x{byte:02x}, which {name} reads as {bytes([byte]).decode(codec)!r}", encoding


def parse_json(text: str, where: str = "", line: int | None = None) -> Any:
    """What a text of JSON holds; ``where`` names it, ``line`` is that of JSON Lines.

    Raises:
        MalformedTextError: if it is not JSON, or holds NaN or Infinity, a key twice in an object, a number that cannot
            be represented, half of a surrogate pair, or lists and objects more than `MAX_DEPTH` inside one another.
    """
    try:
        value = DECODER.decode(text.removeprefix("\ufeff"))
        _check_values(value, text)
    except json.JSONDecodeError as error:
        where_in_it = f"at column {error.colno}" if line else f"at line {error.lineno}, column {error.colno}"
        message = f"not JSON ({error.msg} {where_in_it}){_remedy(error, line is not None)}"
        raise MalformedTextError(where, line, message) from error
    except _Refused as error:
        raise MalformedTextError(where, line or _line_of(error.characters, text), str(error)) from None
    except RecursionError:
        raise MalformedTextError(where, line, _too_deep()) from None
    return value


def shorten(value: object, width: int = 80) -> str:
    """The representation of a value for a message: control characters as escapes, long ones cut."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _line_of(characters: str, text: str) -> int | None:
    return text.count("\n", 0, text.find(characters)) + 1 if characters else None


def _refuse_other_formats(head: bytes, where: str) -> None:
    for signature, found, remedy in SIGNATURES:
        if head.startswith(signature):
            raise MalformedTextError(where, 1, f"{found}; {remedy}")
    # ASCII in two bytes each: every second one is zero
    if any(len(half) > 1 and half.count(0) > 0.6 * len(half) for half in (head[::2], head[1::2])):
        raise MalformedTextError(where, 1, "UTF-16 text, not UTF-8; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")


def _remedy(error: json.JSONDecodeError, is_line: bool) -> str:
    if "escape" in error.msg:
        return r"; write each backslash twice (\\frac)"
    if "control character" in error.msg:
        character = error.doc[error.pos : error.pos + 1]
        return f"; write {json.dumps(character)} for it" if character else ""
    if is_line:
        is_array = error.doc.lstrip().startswith("[")
        return "; the file must hold one JSON object a line" + (", and no array (jq -c '.[]' makes lines)" * is_array)
    return ""


def _refuse_constant(name: str) -> Any:
    raise _Refused(f"{name} is no value of JSON; write null, or a text", name)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Refused(f"the number {digits[:40]} is too large to be represented; write it as a text", digits)
    return value if _says_the_same(repr(value), digits) else WrittenNumber(digits)


def _says_the_same(printed: str, written: str) -> bool:
    """Whether Python prints a number with no digit lost, and no exponent that was not written."""
    if "e" in printed and "e" not in written.lower():
        return False
    try:
        return Decimal(printed) == Decimal(written)
    except InvalidOperation:  # an exponent of a score of digits
        return False


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused(f"a number of {len(digits.lstrip('-'))} digits ({digits[:12]}…); write it as a text", digits)
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"the key {repeated!r} stands twice in the object {shorten(content)}; remove one of them")
    return content


DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_refuse_constant
)


def _check_values(value: Any, text: str) -> None:
    """Only where the text gives cause, since the walk takes longer than the parsing."""
    has_surrogates = SURROGATE_ESCAPE.search(text) is not None
    if not has_surrogates and text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    level, depth = [("", value)], 0
    while level:
        if depth > MAX_DEPTH:
            raise _Refused(_too_deep())
        for place, entry in level:
            if isinstance(entry, str) and SURROGATE.search(place + entry):
                named = f"in {place.encode('ascii', 'backslashreplace').decode()} " if place else ""
                raise _Refused(f"half of a surrogate pair {named}({shorten(entry)}); write the whole character")
        level = [inner for place, entry in level for inner in _inside(place, entry)]
        depth += 1


def _inside(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield place, key
            yield (f"{place}.{key}" if place else key), entry
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield f"{place}[{number}]", entry


def _too_deep() -> str:
    return f"lists and objects stand more than {MAX_DEPTH} deep inside one another; flatten them"
