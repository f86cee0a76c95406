"""The options of commands that read no configuration."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from sgsd_lightning.cli.suggest import suggestion
from sgsd_lightning.texts.shown import printable

UNKNOWN = "unrecognized arguments: "


def require_folders(folders: Iterable[Path], what: str) -> None:
    """Refuse folders that are not there, before the imports that reading one takes.

    Raises:
        FileNotFoundError: naming the first, and what it should be.
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such {what} (looked in {Path.cwd()})")


class CommandParser(argparse.ArgumentParser):
    """argparse's, whose errors are one sentence and name the option that was meant."""

    def __init__(self, **settings: Any) -> None:
        self.known: list[str] = []
        super().__init__(**{"allow_abbrev": False, **settings})

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        self.known += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix(UNKNOWN).split() if message.startswith(UNKNOWN) else []
        flag = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        told = message if flag is None else f"there is no option {flag}{suggestion(flag, self.known)}"
        self.exit(2, printable(f"sgsd: error: {self.prog}: {told}\n"))
