"""`sgsd skills`: a bank from experience, and what is to be known of it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from sgsd_lightning.cli.suggest import suggestion

USAGE = """usage: sgsd skills COMMAND [options]

from nothing to a bank:
  collect   sample a policy on training problems and judge it   --config NAME_OR_FILE --out memories.jsonl
  extract   let a writer make candidates of the memories        --memories FILE --out candidates.json --writer CLASS
  merge     unite candidates that say the same                  --candidates FILE --out bank.json [--writer CLASS]

what is in a bank:
  show      its items                                           BANK
  validate  all that is wrong with it                           BANK
  diff      what changed between two                            OLD NEW
  search    the pairs that a problem would get                  BANK "problem text"

what training found out about it:
  audit     which items helped and which misled                 RUN [--out audit.csv] [--picture audit.png]
  prune     a smaller bank without those that mislead           BANK --audit audit.csv --misleading-above 0.2

`sgsd skills COMMAND --help` explains a command.
"""
COMMANDS = {
    "collect": ("collect", "main"),
    "extract": ("extract", "main"),
    "merge": ("merge", "main"),
    "show": ("show", "show"),
    "validate": ("show", "validate"),
    "diff": ("show", "compare"),
    "search": ("search", "main"),
    "audit": ("audit", "main"),
    "prune": ("prune", "main"),
}


def main(arguments: Sequence[str]) -> None:
    """Run one of the commands.

    Raises:
        ValueError: for an unknown command.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if arguments[0] not in COMMANDS:
        told = suggestion(arguments[0], COMMANDS, "sgsd skills ")
        raise ValueError(f"sgsd skills has no command {arguments[0]!r}{told}")
    module, function = COMMANDS[arguments[0]]
    getattr(importlib.import_module(f"sgsd_lightning.cli.skills.{module}"), function)(arguments[1:])
