"""How commands print what holds text from outside: problems, banks, models' answers, file names."""

from __future__ import annotations

from rich.text import Text

from sgsd_lightning.texts.shown import one_line, printable


def say(text: str) -> None:
    """Print a line, or lines, without passing on control characters."""
    print(printable(text))


def cell(text: str) -> Text:
    """A cell of a table: text as it is, neither markup nor control characters."""
    return Text(one_line(text))
