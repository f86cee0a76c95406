"""Arguments that are objects, such as a writer: by class name and settings, or from a YAML file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from sgsd_lightning.cli.errors import essential_lines
from sgsd_lightning.cli.null_values import keep_nulls
from sgsd_lightning.texts.shown import printable


class SkillsParser(ArgumentParser):
    """Says what is wrong in a few lines."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.stderr.write(f"sgsd: error: {printable(essential_lines(message))}\n")
        raise SystemExit(2)


def call_with_arguments(function: Callable[..., None], prog: str, arguments: Sequence[str]) -> None:
    """Call a function with what the command line, or a file under ``--config``, says of its parameters.

    Classes of writers, language models, similarities and retrievers are known by their names.
    """
    _make_known()
    keep_nulls()
    description = (function.__doc__ or "").partition("\n\n")[0]
    parser = SkillsParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="a YAML file with any of these")
    parser.add_function_arguments(function, as_group=False)
    objects = parser.instantiate(parser.parse_args(list(arguments)))
    values: dict[str, Any] = dict(objects)
    values.pop("config", None)
    function(**values)


def _make_known() -> None:
    """Class names work for classes that are imported."""
    import sgsd_lightning.language_models
    import sgsd_lightning.policy
    import sgsd_lightning.skills.growth
    import sgsd_lightning.skills.similarity
    import sgsd_lightning.toy  # noqa: F401
