"""Damaged text: what is found, and what is left alone."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from sgsd_lightning.texts.damage import (
    control_characters,
    lost_backslashes,
    lost_in_formula,
    restore_backslashes,
    strip_spaces,
    unreadable_character,
)

COMMANDS = (
    *("alpha", "angle", "approx", "arctan", "bar", "begin", "beta", "big", "binom", "boxed", "varphi", "vec", "vdots"),
    *("fbox", "forall", "frac", "nabla", "natural", "neq", "nexists", "notin", "rangle", "rbrace", "rceil", "rfloor"),
    *("rho", "right", "rightarrow", "tan", "tau", "tbinom", "text", "textbf", "tfrac", "theta", "therefore", "tilde"),
    *("times", "to", "top", "triangle"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_whose_backslash_python_read_is_found_and_restored(command: str) -> None:
    whole = rf"If $x \{command} {{a}} y$ holds, then"
    eaten = ast.literal_eval(f'"{whole}"')
    assert eaten != whole
    assert [damage.meant for damage in lost_backslashes(eaten)] == [rf"\{command}"]
    assert restore_backslashes(eaten) == whole
    assert lost_backslashes(whole) == []


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (r"$(a + rac{1}{2})$ and $ ext{length} = 3 imes 4$", [r"\frac", r"\text", r"\times"]),
        (r"extbf{Note} oxed{3}, $\left( inom{4}{2} ight)$", [r"\textbf", r"\boxed", r"\binom", r"\right"]),
        ("\x0crac{1}{2}\n\t\x08eta", [r"\frac", r"\beta"]),
        (r"$arphi + arepsilon$, riangle ABC", [r"\varphi", r"\varepsilon", r"\triangle"]),
    ],
)
def test_commands_are_found_where_the_character_is_gone_too(text: str, meant: list[str]) -> None:
    assert [damage.meant for damage in lost_backslashes(text)] == meant


@pytest.mark.parametrize(
    "text",
    [
        "see\neq. 3",
        "line\nto be\nangle of\nmid-air",
        "a\tb\tan apple\to eat",
        "real f(real x)\n{\n\treturn 2*sin(3*x);\n}",
        "costs $5\nless than $6",
        "have\tequal\tperimeters",
        "\r\nright\r\ntimes",
        "\x1b[31mred",
        "$$\nu^2 + v^2\n$$ and \\begin{align*}\ne^{i}",
        r"\frac{1}{2} \text{a} \times \textbf{b} \right) \boxed{3}",
        "extra text, a race, the bar {x}, brightness, fight) and night)",
    ],
)
def test_sound_text_is_left_alone(text: str) -> None:
    assert lost_backslashes(text) == []
    assert restore_backslashes(text) == text


@pytest.mark.parametrize(
    ("text", "kept"), [("\x0crac{1}{2} ", "\x0crac{1}{2}"), ("\tan 30\n", "\tan 30"), (" \t4 ", "4")]
)
def test_white_space_that_began_a_command_is_kept(text: str, kept: str) -> None:
    assert strip_spaces(text) == kept


def test_an_answer_is_read_as_a_formula() -> None:
    assert [damage.start for damage in lost_in_formula("2\tan 30")] == [1]
    assert lost_backslashes("2\tan 30") == []


def test_what_no_text_has_is_named() -> None:
    assert control_characters("a\x1b\x07\x1b\u202e\n\t\r") == ["\x1b", "\x07", "\u202e"]
    assert unreadable_character("a\0") == "the character NUL"
    assert "surrogate" in (unreadable_character("\ud800") or "")
    assert unreadable_character("a\n\t\U0001d538") is None


NUM_DAMAGED = {"math_train_3k": 0, "math500": 0, "hmmt25": 0, "aime24": 0, "aime25": 3, "aime26": 0}


@pytest.mark.parametrize("name", NUM_DAMAGED)
def test_published_problems_are_sound_but_for_three_of_aime25(shared_data: Path, name: str) -> None:
    records = map(json.loads, (shared_data / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
    texts = (record["problem"] + "\n" + record.get("solution", "") for record in records)
    assert sum(bool(lost_backslashes(text)) for text in texts) == NUM_DAMAGED[name]
