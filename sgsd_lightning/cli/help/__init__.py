"""`sgsd help`, and the help of commands that read a configuration: from source text, without Lightning's imports."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Print the page of a part, a class or a command.

    Raises:
        ValueError: for a word that names nothing, with the nearest that does.
    """
    from sgsd_lightning.cli import main as run_command
    from sgsd_lightning.cli.help.pages import help_page
    from sgsd_lightning.cli.usage import OTHER_COMMANDS, RUN_COMMANDS

    words = [word for word in arguments if word not in ("-h", "--help")]
    if len(words) == 1 and words[0] in (*RUN_COMMANDS, *OTHER_COMMANDS) and words[0] != "help":
        run_command([words[0], "--help"])
    else:
        print(help_page(words), end="")
