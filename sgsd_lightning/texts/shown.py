"""Text from outside, made harmless for the programs that people look at it with: terminals and spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_CONTROLS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # ESC and its kin, of both sets
    r"\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, or turns text round
    r"\ud800-\udfff\ufdd0-\ufdef\U000e0000-\U000e007f"  # what no stream takes, or nobody sees
)
_CONTROL = re.compile(f"[{_CONTROLS}]")
_CONTROL_OR_BREAK = re.compile(f"[{_CONTROLS}\\t\\n]")
_NAMES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: str) -> str:
    r"""The text with control characters spelt out (``\x1b``), so that a terminal shows them and obeys none.

    Line breaks and tabs stay; invisible characters, those that turn the direction round and lone surrogates count as
    control characters.
    """
    return _CONTROL.sub(_spelt, text)


def one_line(text: str) -> str:
    r"""The same on one line: line breaks and tabs are spelt out too."""
    return _CONTROL_OR_BREAK.sub(_spelt, text)


def quote_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a CSV file whose texts no spreadsheet takes for formulas: an apostrophe stands before those it would.

    Numbers stay numbers, spelt as text too.
    """
    return {name: _quoted(value) if isinstance(value, str) else value for name, value in row.items()}


def read_cell(cell: str) -> str:
    """The text that :func:`quote_cells` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def _quoted(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _spelt(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    spelt = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _NAMES.get(character, spelt)
