"""`null` on the command line is null at every depth, and the text "None" stays a text."""

from __future__ import annotations

from typing import Any

import pytest
from jsonargparse import ArgumentParser

from sgsd_lightning.cli.null_values import keep_nulls, spell_as_yaml


class Innermost:
    def __init__(self, text: str | None = "x", limit: int | None = 3) -> None: ...


class Inner:
    def __init__(
        self,
        innermost: Innermost | None = None,
        text: str | None = "x",
        limit: int | None = 3,
        names: list[str | None] | None = None,
        table: dict[str, str | None] | None = None,
        rate: float = 1.0,
        is_on: bool = False,
    ) -> None: ...


class Outer:
    def __init__(self, inner: Inner | None = None, text: str | None = "x") -> None: ...


PREFIX = f"--outer={__name__}.Outer", f"--outer.inner={__name__}.Inner"


def parsed(*arguments: str) -> Any:
    keep_nulls()
    keep_nulls()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Outer, "outer")
    return parser.parse_args([*PREFIX, *arguments]).outer.init_args


@pytest.mark.parametrize(
    "option", ["inner.text", "inner.init_args.text", "init_args.inner.text", "init_args.inner.init_args.text"]
)
@pytest.mark.parametrize(
    ("said", "value"), [("null", None), ("None", "None"), ("none", "none"), ("nul", "nul"), ("", "")]
)
def test_null_is_null_and_every_other_word_a_text(option: str, said: str, value: str | None) -> None:
    assert parsed(f"--outer.{option}={said}").inner.init_args.text == value


@pytest.mark.parametrize(
    ("said", "name", "value"),
    [
        ("limit=null", "limit", None),
        ("limit=4", "limit", 4),
        ("names=[a, null, None]", "names", ["a", None, "None"]),
        ("names=null", "names", None),
        ("table={a: null, b: c}", "table", {"a": None, "b": "c"}),
        ("rate=1e-5", "rate", 1e-5),
        ("is_on=true", "is_on", True),
        ('text="quoted: text"', "text", '"quoted: text"'),
        ("text={problem}", "text", "{problem}"),
        ("text=3", "text", "3"),
    ],
)
def test_other_values_are_what_they_were(said: str, name: str, value: object) -> None:
    assert parsed(f"--outer.inner.{said}").inner.init_args[name] == value


def test_null_reaches_three_classes_deep() -> None:
    inner = f"--outer.inner.innermost={__name__}.Innermost"
    found = parsed(inner, "--outer.inner.innermost.text=null", "--outer.inner.innermost.limit=null")
    innermost = found.inner.init_args.innermost.init_args
    assert (innermost.text, innermost.limit) == (None, None)
    assert parsed(inner, "--outer.inner.innermost=null").inner.init_args.innermost is None


def test_what_json_cannot_spell_is_left() -> None:
    value = {"path": object()}
    assert spell_as_yaml(value) is value
