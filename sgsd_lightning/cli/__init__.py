"""The command `sgsd`."""

from __future__ import annotations

import importlib
import os
import sys

from sgsd_lightning import __version__
from sgsd_lightning.cli import process
from sgsd_lightning.cli.errors import INPUT_ERRORS, message_to_user, process_label
from sgsd_lightning.cli.suggest import suggestion
from sgsd_lightning.cli.usage import OTHER_COMMANDS, RUN_COMMANDS, USAGE
from sgsd_lightning.texts.shown import printable

PRINTS_ONLY = ("-h", "--help", "--print_config")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the process's exit status.

    Args:
        arguments: the command and its options; None takes those of the process, which then finds modules in the
            current folder and ends at once where Ctrl-C interrupts an import.
    """
    if arguments is None:
        process.find_modules_here()
        process.end_interrupted_imports()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not process.is_unread():
            raise
        process.drop_output()
        return 0 if _prints_only(words) else process.UNREAD


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"sgsd {__version__}")
        return 0
    try:
        _dispatch(words[0], words[1:])
    except KeyboardInterrupt:
        return process.told_interrupted()
    except Exception as error:
        message = message_to_user(error)
        is_unread = isinstance(error, BrokenPipeError) and process.is_unread()
        if is_unread or message is None or os.environ.get("SGSD_TRACEBACK"):
            raise
        print(f"{process_label()}: error: {printable(message)}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, INPUT_ERRORS) else 1
    return 0


def _dispatch(command: str, rest: list[str]) -> None:
    name = command.replace("_", "-")
    if command in OTHER_COMMANDS:
        importlib.import_module(OTHER_COMMANDS[command]).main(rest)
    elif name not in RUN_COMMANDS:
        known = (*RUN_COMMANDS, *OTHER_COMMANDS)
        raise ValueError(f"there is no command {command}{suggestion(command, known, 'sgsd ', '; see sgsd --help')}")
    elif any(word in ("-h", "--help") for word in rest):
        from sgsd_lightning.cli.help.pages import command_page

        print(command_page(name), end="")
    else:
        _run_configuration(name.replace("-", "_"), rest)


def _run_configuration(method: str, rest: list[str]) -> None:
    from sgsd_lightning.cli.configs import resolve_config_arguments
    from sgsd_lightning.cli.quick_check import check_arguments

    resolved = resolve_config_arguments(rest)
    check_arguments(method, resolved)
    from sgsd_lightning.cli.endings import say_what_was_done
    from sgsd_lightning.cli.lightning_cli import run
    from sgsd_lightning.cli.terminal import announce_choices, silence_known_warnings

    announce_choices()
    silence_known_warnings()
    say_what_was_done(run([method, *resolved]))


def _prints_only(words: list[str]) -> bool:
    is_run = words[:1] and words[0].replace("_", "-") in (*RUN_COMMANDS, "demo", "study")
    return not is_run or any(word.partition("=")[0] in PRINTS_ONLY for word in words)
