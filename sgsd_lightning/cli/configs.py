"""Configurations by name: the ones that come with the package work from any folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgsd_lightning.cli.renamed import check_file, check_flag
from sgsd_lightning.cli.suggest import nearest, suggestion

PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """The folder of the shipped configurations: inside an installed package, beside it in a checkout."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


LAYERED = {
    "sgsd_qwen3_1.7b": ("sgsd_paper", "model/qwen3_1.7b"),
    "sgsd_qwen3_4b": ("sgsd_paper", "model/qwen3_4b"),
    "sgsd_qwen3_8b": ("sgsd_paper", "model/qwen3_8b"),
    "sgsd_toy_growing": ("sgsd_toy", "method/growing_bank"),
}
"""Short names for a configuration with others laid over it."""
OVERLAYS = ("model", "method", "scale")
"""Folders of what is laid over a configuration: whose weights, which method, which devices."""


def shipped_configs() -> dict[str, Path]:
    """Name to file of every shipped configuration that is whole."""
    return _named("")


def overlay_configs(kind: str) -> dict[str, Path]:
    """Name to file of the overlays of a kind, such as ``method/opsd`` and ``scale/fsdp2``."""
    return _named(f"{kind}/")


def _named(prefix: str) -> dict[str, Path]:
    return {
        f"{prefix}{path.name.removesuffix('.yaml')}": path for path in sorted(config_folder().glob(f"{prefix}*.yaml"))
    }


def all_configs() -> dict[str, Path]:
    """Name to file of all of them."""
    return {**shipped_configs(), **{name: path for kind in OVERLAYS for name, path in overlay_configs(kind).items()}}


def resolve_configs(value: str) -> list[str]:
    """A file that exists stays as it is; else ``name``, ``name.yaml`` or ``configs/name.yaml`` names shipped files.

    Names of overlays begin with their kind: ``model/``, ``method/``, ``scale/``. A short name stands for several files,
    one laid over the other.

    Raises:
        FileNotFoundError: if there is none, listing the shipped names.
    """
    if Path(value).is_file():
        return [value]
    shipped = all_configs()
    # not .stem: a name may hold a dot, as 1.7b
    name = Path(value).as_posix().removeprefix("configs/").removesuffix(".yaml")
    names = LAYERED.get(name, (name,))
    if all(part in shipped for part in names):
        return [str(shipped[part]) for part in names]
    known = [*shipped, *LAYERED]
    told = suggestion(name, known) if nearest(name, known) else f"; there are {', '.join(known)}"
    raise FileNotFoundError(f"--config {value}: no such file, and no shipped configuration of that name{told}")


def resolve_config(value: str) -> str:
    """The same for a name that stands for one file.

    Raises:
        FileNotFoundError: as :func:`resolve_configs`.
        ValueError: for a short name of several.
    """
    paths = resolve_configs(value)
    if len(paths) > 1:
        raise ValueError(f"{value} stands for {len(paths)} configurations, one laid over the other: {LAYERED[value]}")
    return paths[0]


def resolve_config_arguments(arguments: list[str]) -> list[str]:
    """Replace the values of ``--config``/``-c`` in a command line.

    Raises:
        FileNotFoundError: as :func:`resolve_configs`.
        ValueError: for settings of an earlier edition, on the command line or in a file, saying what they are now.
    """
    resolved: list[str] = []
    place = 0
    while place < len(arguments):
        flag, equals, value = arguments[place].partition("=")
        place += 1
        if flag not in ("--config", "-c") or not (equals or place < len(arguments)):
            # a value may be an argument of its own
            is_apart = not equals and place < len(arguments) and not arguments[place].startswith("-")
            check_flag(f"{flag}={arguments[place]}" if is_apart else arguments[place - 1])
            resolved.append(arguments[place - 1])
            continue
        if not equals:
            value, place = arguments[place], place + 1
        for path in resolve_configs(value):
            check_file(Path(path))
            resolved.append(f"{flag}={path}")
    return resolved


def main(arguments: Sequence[str]) -> None:
    """List the shipped configurations, one a line.

    Raises:
        ValueError: for an argument, of which there is none.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        print("usage: sgsd configs\n\nlists the configurations that --config takes by name, and their files")
        return
    if arguments:
        raise ValueError(f"sgsd configs takes no argument; got {' '.join(arguments)}")
    for name, path in all_configs().items():
        print(f"{name:32s} {path}")
    for name, parts in LAYERED.items():
        print(f"{name:32s} {' + '.join(parts)}")
