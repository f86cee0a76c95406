"""Configurations by name: the ones that come with the package work from any folder."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """The folder of the shipped configurations: inside an installed package, beside it in a checkout."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Name to file of every shipped configuration that is whole."""
    return {path.name.removesuffix(".yaml"): path for path in sorted(config_folder().glob("*.yaml"))}


def scale_configs() -> dict[str, Path]:
    """Name to file of the trainer settings that are laid over one of them, such as ``scale/fsdp2``."""
    return {f"scale/{path.name.removesuffix('.yaml')}": path for path in sorted(config_folder().glob("scale/*.yaml"))}


def method_configs() -> dict[str, Path]:
    """Name to file of the methods that are laid over one of them, such as ``method/opsd``."""
    return {f"method/{path.name.removesuffix('.yaml')}": path for path in sorted(config_folder().glob("method/*.yaml"))}


def resolve_config(value: str) -> str:
    """A file that exists stays as it is; else ``name``, ``name.yaml`` or ``configs/name.yaml`` names a shipped one.

    Names of trainer settings begin with ``scale/``, those of methods with ``method/``.

    Raises:
        FileNotFoundError: if neither exists, listing the shipped names.
    """
    if Path(value).is_file():
        return value
    shipped = {**shipped_configs(), **scale_configs(), **method_configs()}
    # not .stem: a name may hold a dot, as 1.7b
    name = Path(value).as_posix().removeprefix("configs/").removesuffix(".yaml")
    if name in shipped:
        return str(shipped[name])
    raise FileNotFoundError(
        f"--config {value}: no such file, and no shipped configuration of that name; there are {', '.join(shipped)}"
    )


def resolve_config_arguments(arguments: list[str]) -> list[str]:
    """Replace the values of ``--config``/``-c`` in a command line."""
    resolved: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if resolved and resolved[-1] in ("--config", "-c"):
            resolved.append(resolve_config(argument))
        elif flag in ("--config", "-c") and equals:
            resolved.append(f"{flag}={resolve_config(value)}")
        else:
            resolved.append(argument)
    return resolved
