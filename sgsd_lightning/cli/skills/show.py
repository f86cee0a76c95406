"""`sgsd skills show|validate|diff`: what a bank holds, what is wrong with it, what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from sgsd_lightning.cli.command_parser import CommandParser
from sgsd_lightning.cli.output import cell, say
from sgsd_lightning.skills.bank import Mistake, Skill, SkillBank
from sgsd_lightning.skills.diff import FieldChange, KindDiff, diff
from sgsd_lightning.skills.provenance import SOURCES_KEY, list_sources
from sgsd_lightning.skills.selection import STATUS
from sgsd_lightning.texts.shown import one_line


def show(arguments: Sequence[str]) -> None:
    """Print the items of a bank.

    Raises:
        FileNotFoundError: if there is no such bank.
        ValueError: if it is malformed.
    """
    parser = CommandParser(prog="sgsd skills show", description="What a bank holds.")
    parser.add_argument("bank", metavar="BANK")
    parser.add_argument("--kind", choices=("skills", "mistakes"), help="only these")
    options = parser.parse_args(list(arguments))
    bank = SkillBank.load(options.bank)
    table = Table(title=f"{len(bank.general_skills)} skills, {len(bank.common_mistakes)} mistakes")
    table.add_column("item", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("sources", justify="right")
    table.add_column("says")
    chosen: dict[str | None, Sequence[Skill | Mistake]] = {
        None: bank.items,
        "skills": bank.general_skills,
        "mistakes": bank.common_mistakes,
    }
    for item in chosen[options.kind]:
        num_sources = str(len(list_sources(item))) if SOURCES_KEY in item.extra else ""
        status = str(item.extra.get(STATUS, "static"))
        table.add_row(cell(item.item_id), cell(status), num_sources, cell(item.headline))
    Console().print(table)


def validate(arguments: Sequence[str]) -> None:
    """Print all that is wrong with a bank.

    Raises:
        FileNotFoundError: if there is no such bank.
        SystemExit: with status 1 if it would not load.
    """
    parser = CommandParser(prog="sgsd skills validate", description="What is wrong with a bank, item by item.")
    parser.add_argument("bank", metavar="BANK")
    parser.add_argument("--notes", action="store_true", help="say too what is merely unusual")
    options = parser.parse_args(list(arguments))
    from sgsd_lightning.skills.inspection import find_problems

    problems = find_problems(options.bank)
    for problem in problems:
        if problem.severity != "note" or options.notes:
            say(one_line(str(problem)))
    counts = Counter(problem.severity for problem in problems)
    say(f"{options.bank}: {counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes")
    if counts["error"]:
        raise SystemExit(1)


def compare(arguments: Sequence[str]) -> None:
    """Print what changed from one bank to another.

    Raises:
        FileNotFoundError: if one of them is missing.
        ValueError: if one is malformed.
    """
    parser = CommandParser(prog="sgsd skills diff", description="What changed between two banks.")
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    options = parser.parse_args(list(arguments))
    found = diff(SkillBank.load(options.old), SkillBank.load(options.new))
    if not found:
        print("the banks are the same")
    _print_kind("skills", found.skills)
    _print_kind("mistakes", found.mistakes)
    for change in found.other_keys:
        _print_change(change, "")


def _print_kind(name: str, found: KindDiff[Skill] | KindDiff[Mistake]) -> None:
    for item in found.added:
        say(one_line(f"+ {item.item_id}: {item.headline}"))
    for item in found.removed:
        say(one_line(f"- {item.item_id}: {item.headline}"))
    for change in found.changed:
        say(one_line(f"~ {change.new.item_id}: {change.new.headline}"))
        for field in change.fields:
            _print_change(field, "    ")
    if found.is_reordered:
        print(f"the {name} that both have stand in another order")


def _print_change(change: FieldChange, indent: str) -> None:
    old, new = (_short(value) for value in (change.old, change.new))
    say(indent + one_line(f"{change.field}: {old} -> {new}"))


def _short(value: object, width: int = 70) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
