"""The run folder of a command line that names none: after its configurations, so that another method runs elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sgsd_lightning.cli.configs import LAYERED, config_folder

RUNS = "runs"


def with_run_folder(arguments: Sequence[str]) -> list[str]:
    """Begin the arguments of a command with its run folder, which whatever comes after may set to another.

    Args:
        arguments: those after the command, with ``--config`` naming files.
    """
    folder = run_folder(list(_config_files(arguments)))
    return [*([] if folder is None else [f"--trainer.default_root_dir={folder}"]), *arguments]


def run_folder(files: Sequence[str]) -> str | None:
    """Return ``runs/sgsd_toy-grpo`` for `sgsd_toy` and `method/grpo` laid over it; None without a configuration.

    Configurations that a short name stands for, such as `sgsd_qwen3_4b`, run in the folder of that name either way.
    """
    names = tuple(_name(Path(file)) for file in files)
    for short, parts in LAYERED.items():
        if names[: len(parts)] == parts:
            names = (short, *names[len(parts) :])
    return f"{RUNS}/{'-'.join(name.rpartition('/')[2] for name in names)}" if names else None


def _name(file: Path) -> str:
    """Of a shipped configuration with its kind, such as ``method/grpo``; of any other file its own name."""
    shipped = config_folder()
    path = file.resolve()
    known = path.relative_to(shipped).as_posix() if path.is_relative_to(shipped) else path.name
    return known.removesuffix(".yaml").removesuffix(".yml")  # not .stem: a name may hold a dot, as 1.7b


def _config_files(arguments: Sequence[str]) -> Iterator[str]:
    following = iter(arguments)
    for argument in following:
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-c"):
            yield value if equals else next(following, "")
