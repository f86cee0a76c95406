"""Text from outside in a terminal and in a spreadsheet."""

from __future__ import annotations

import csv
import io
import logging
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.cli import main
from sgsd_lightning.cli.terminal import announce_choices
from sgsd_lightning.skills import SkillBank
from sgsd_lightning.texts.shown import one_line, printable, quote_cells, read_cell
from tests.skills.bank_items import mistake, skill

EVIL = "red \x1b[31m\x1b]0;pwned\x07 \x9b2J \u202e rtl \r over \x00 \u2028 [bold]x[/bold]\nforged line"
HARMLESS_FORMATS = "\u200c\u200d"
"""The two joiners, which scripts and emoji need."""


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_printed_is_a_control_character(text: str) -> None:
    shown = set(printable(text)) - {"\n", "\t", *HARMLESS_FORMATS}
    kinds = {unicodedata.category(character) for character in shown}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    assert not {"\n", "\t"} & set(one_line(text))
    assert printable(text).isascii() or not text.isascii()


def test_what_is_spelt_out_can_be_read() -> None:
    assert printable("a\x1b[0m\r\u202e\ud800\n") == "a\\x1b[0m\\r\\u202e\\ud800\n"
    assert one_line("a\tb\n") == "a\\tb\\n"
    plain = "x\u00b2 \u2264 \u00bd, \u4e2d\u6587, \u0646\u0645\u200c\u06cc, \U0001f468\u200d\U0001f469"
    assert printable(plain) == plain


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bank, and the same one with control characters in every text."""
    folder = tmp_path_factory.mktemp("banks")
    paths = folder / "plain.json", folder / "evil\x1b.json"
    for path, end in zip(paths, ("", EVIL.replace("\x00", "")), strict=True):
        skills = [skill(f"s{n}", f"{word} {end}") for n, word in enumerate(("apples", "pears"))]
        mistakes = [mistake(f"m{n}{end[:9]}", f"{word} {end}") for n, word in enumerate(("plums", "figs"))]
        SkillBank(general_skills=tuple(skills), common_mistakes=tuple(mistakes)).save(path)
    return paths


@pytest.mark.parametrize("command", ["show", "validate", "diff", "search", "missing"])
def test_no_command_passes_control_characters_on(
    command: str, banks: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, evil = map(str, banks)
    arguments = {"diff": [plain, evil], "search": [evil, EVIL.replace("\x00", ""), "--num=2"], "missing": [evil + "x"]}
    status = main(["skills", command.replace("missing", "show"), *arguments.get(command, [evil])])
    assert status == (2 if command == "missing" else 0)
    output = capsys.readouterr()
    shown = output.out + output.err
    assert shown.strip()
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r", "\x00"} & set(shown)
    assert "\nforged line" not in shown


def test_messages_of_the_log_neither() -> None:
    announce_choices()
    logger = logging.getLogger("sgsd_lightning")
    (handler,) = [handler for handler in logger.handlers if isinstance(handler, logging.StreamHandler)]
    record = logging.LogRecord("sgsd_lightning.x", logging.WARNING, "", 0, "problem %s", (EVIL,), None)
    assert handler.format(record) == printable(f"problem {EVIL}")


FORMULAS = ["=1+1", "+cmd", "-x", "@SUM(1)", "\t=1", "\r=1", "\uff1d1", "-1+2", "'=1", "''@x"]
PLAIN = ["plain", "'quoted'", "", " =1", "a=b", "-5", "+0.5e-3", "1 = 1", "\u2212x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_gets_an_apostrophe_and_is_read_without(text: str) -> None:
    assert quote_cells({"x": text}) == {"x": f"'{text}"}


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_and_numbers_stay(text: str) -> None:
    assert quote_cells({"x": text, "y": -1.5, "z": None}) == {"x": text, "y": -1.5, "z": None}


@given(st.text() | st.sampled_from([*FORMULAS, *PLAIN]))
def test_a_cell_is_read_as_it_was_written(text: str) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(quote_cells({"x": text}).values())
    (row,) = csv.reader(io.StringIO(buffer.getvalue(), newline=""))
    assert [read_cell(cell) for cell in row] == [text]
