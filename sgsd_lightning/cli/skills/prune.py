"""`sgsd skills prune`: a smaller bank without the items that an audit condemns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgsd_lightning.cli.command_parser import CommandParser
from sgsd_lightning.cli.output import say
from sgsd_lightning.skills.audit import PruneRules, load_audit, prune
from sgsd_lightning.skills.bank import SkillBank
from sgsd_lightning.texts.shown import one_line
from sgsd_lightning.texts.strict_json import shorten

DESCRIPTION = """Write a bank without the items that mislead with confidence, by the audit of a run, and say what went
and why. Nothing is dropped on few uses or on a guess: the whole interval must lie beyond the bound."""


def main(arguments: Sequence[str]) -> None:
    """Prune a bank.

    Raises:
        FileNotFoundError: if bank or audit are missing.
        ValueError: if one of them is malformed, if the audit is of another bank, if no bound is given, or if a kind of
            item would be left empty.
    """
    defaults = PruneRules()
    parser = CommandParser(prog="sgsd skills prune", description=DESCRIPTION)
    parser.add_argument("bank", metavar="BANK")
    parser.add_argument("--audit", type=Path, required=True, help="what `sgsd skills audit RUN --out FILE` wrote")
    parser.add_argument("--out", type=Path, help="the smaller bank; without it nothing is written")
    parser.add_argument("--misleading-above", type=float, help="drop items misleading more often than this")
    parser.add_argument("--usefulness-below", type=float, help="drop items less useful than this")
    parser.add_argument("--min-uses", type=int, default=defaults.min_uses, help="items used less often stay")
    options = parser.parse_args(list(arguments))
    rules = PruneRules(
        misleading_above=options.misleading_above, usefulness_below=options.usefulness_below, min_uses=options.min_uses
    )
    if rules.misleading_above is None and rules.usefulness_below is None:
        raise ValueError("sgsd skills prune needs a bound: --misleading-above 0.2, --usefulness-below 0.5, or both")
    bank = SkillBank.load(options.bank)
    smaller, dropped = prune(bank, load_audit(options.audit), rules)
    titles = {item.item_id: item.headline for item in bank.items}
    for drop in dropped:
        say(one_line(f"{drop.item_id}: {drop.reason} ({shorten(titles[drop.item_id])})"))
    print(f"{len(dropped)} of {len(bank.items)} items go, {len(smaller.items)} stay")
    for name, items in (("skills", smaller.general_skills), ("mistakes", smaller.common_mistakes)):
        if not items:
            raise ValueError(f"no {name} would be left, and a bank without them teaches nothing; loosen the bounds")
    if options.out:
        smaller.save(options.out)
        print(f"wrote {options.out}")
