"""`sgsd plan`: the memory and the operations of a run, from its configuration alone."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from typing import Any

import yaml
from rich.console import Console

from sgsd_lightning.cli.command_parser import CommandParser

DESCRIPTION = """Say what a run needs on each device, item by item, whether that fits a card, and how many operations
an optimizer step takes. Reads the same configuration as fit, with the same overrides, and loads neither the model nor
the data. All of it is arithmetic: nothing of it was checked against measurement on a GPU."""
CARDS_GIB = (24.0, 80.0, 141.0)


def main(arguments: Sequence[str]) -> None:
    """Print the plan of the run that a configuration describes.

    Raises:
        ValueError: for a configuration that nothing can be said about, naming the field.
    """
    options, rest = _parser().parse_known_args(list(arguments))
    if not any(argument.partition("=")[0] in ("--config", "-c") for argument in rest):
        raise ValueError("sgsd plan needs a configuration: --config NAME_OR_FILE, as for sgsd fit")
    config = parsed_configuration(rest)

    from sgsd_lightning.planning.configuration import Estimates, read_configuration
    from sgsd_lightning.planning.report import plan_markdown, print_plan

    read = read_configuration(
        config,
        Estimates(
            model_name=options.model,
            num_devices=options.num_devices,
            prompt_tokens=options.prompt_tokens,
            teacher_prompt_tokens=options.teacher_prompt_tokens,
        ),
    )
    if options.markdown:
        print(plan_markdown(read, options.device_memory_gib))
    else:
        print_plan(read, options.device_memory_gib, Console())


def parsed_configuration(arguments: list[str]) -> dict[str, Any]:
    """The whole configuration that `sgsd fit` would run with, defaults included, without an object of it being made.

    Raises:
        ValueError: for an option or class that there is not.
        SystemExit: with a message, for other arguments that `sgsd fit` refuses.
    """
    from sgsd_lightning.cli.configs import resolve_config_arguments
    from sgsd_lightning.cli.quick_check import check_arguments

    resolved = resolve_config_arguments(arguments)
    check_arguments("fit", resolved)
    from sgsd_lightning.cli.lightning_cli import run

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            run(["fit", *resolved, "--print_config"])
    except SystemExit as stop:
        if stop.code:
            raise
    config: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return config


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="sgsd plan",
        description=DESCRIPTION,
        epilog="Everything else is passed on as to sgsd fit: --config NAME_OR_FILE, --trainer.devices 8, …",
    )
    parser.add_argument(
        "--device-memory-gib", type=_positive_number, nargs="+", default=CARDS_GIB, help="cards to compare with"
    )
    parser.add_argument("--num-devices", type=_positive_count, help="in the place of trainer.devices x num_nodes")
    parser.add_argument("--model", help="a hub name or folder, in the place of the configuration's")
    parser.add_argument(
        "--prompt-tokens", type=_positive_count, help="of a student's prompt; default: prompts.max_prompt_tokens"
    )
    parser.add_argument(
        "--teacher-prompt-tokens", type=_positive_count, help="of a teacher's; default: prompts.max_prompt_tokens"
    )
    parser.add_argument("--markdown", action="store_true", help="write Markdown")
    return parser


def _positive_count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0; got {text!r}")
    return number
