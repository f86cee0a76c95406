"""Misspelt options, settings and classes are found in a tenth of a second, before Lightning's seconds of imports.

Only what cannot be right is refused here: whatever the text of classes does not settle is left to the parser.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sgsd_lightning.cli.configs import LAYERED, all_configs
from sgsd_lightning.cli.parts import PARTS, Part, classes_of
from sgsd_lightning.cli.source.modules import Definition, Missing, find, read_module, resolve
from sgsd_lightning.cli.source.signatures import Argument, Signature, find_method, is_dataclass, signature
from sgsd_lightning.cli.suggest import nearest, suggestion

COMMANDS = "sgsd_lightning.cli.lightning_cli.SelfDistillationTrainer"
MODEL = "sgsd_lightning.module.SelfDistillation"
CALLBACKS = "sgsd_lightning.callbacks.defaults"
GIVEN_BY_CODE = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
"""Arguments of the trainer's methods that no command line has."""
INSTANCE_KEYS = ("class_path", "init_args", "dict_kwargs")
CALLABLES = {"OptimizerCallable": "optimizer", "LRSchedulerCallable": "scheduler"}
"""Annotations of functions that make something, and the part that they make."""
SHIPPED = ("sgsd_lightning", "torch", "lightning")
BY_FILE = (".yaml", ".yml", ".json")


def check_arguments(command: str, arguments: Sequence[str]) -> None:
    """Refuse a command line, or a file under its ``--config``, that names what there is not.

    Args:
        command: one of those that read a configuration, as the trainer's method is called.
        arguments: with files, not names, under ``--config``.

    Raises:
        ValueError: naming the option, the file or the class, and what was probably meant; for a command line without a
            configuration, or with something that is no option.
    """
    shown = f"sgsd {command.replace('_', '-')}".replace("sgsd collect-memories", "sgsd skills collect")
    flags = {flag for flag, _ in _options(arguments)}
    _check_words(shown, arguments)
    if not any(flag in ("-c", "--config", "--print_config") or flag.startswith("--model") for flag in flags):
        raise ValueError(
            f"{shown} needs a configuration: --config sgsd_toy, or a file; sgsd configs lists those shipped"
        )
    check = _Check(top_level(command), {"model": MODEL})
    for flag, value in _options(arguments):
        name = flag.lstrip("-")
        if flag in ("--config", "-c") and value is not None:
            check.file(Path(value))
        elif flag.startswith("--") and name not in ("help", "print_config") and "help" not in name.split("."):
            check.option(name, value)


@cache
def top_level(command: str) -> Signature:
    """What a command accepts, as arguments whose annotations are classes."""
    owner = find(COMMANDS)
    assert isinstance(owner, Definition)
    own = signature(command_method(command))
    arguments = {name: argument for name, argument in own.arguments.items() if name not in GIVEN_BY_CODE}
    arguments |= {name: Argument(name, None, None, owner) for name in ("config", "seed_everything")}
    for name, kind in {"trainer": "Trainer", "model": "SelfDistillation", "data": "LightningDataModule"}.items():
        arguments[name] = Argument(name, ast.Name(kind, ast.Load()), None, owner)
    for name, callback in run_callbacks().items():
        arguments[name] = Argument(name, ast.Name(callback.node.name, ast.Load()), None, callback)
    return Signature(arguments, own.is_open)


def command_method(command: str) -> Definition:
    """The trainer's method that a command calls."""
    trainer = find(COMMANDS)
    assert isinstance(trainer, Definition)
    method = find_method(trainer, command)
    assert method is not None
    return method


@cache
def run_callbacks() -> dict[str, Definition]:
    """The callbacks of every run, by name."""
    module = read_module(CALLBACKS)
    assert module is not None
    table = getattr(module.defined["RUN_CALLBACKS"], "value", None)
    assert isinstance(table, ast.Dict)
    kinds = {
        ast.literal_eval(key): resolve(module, kind) for key, kind in zip(table.keys, table.values, strict=True) if key
    }
    return {name: kind for name, kind in kinds.items() if kind is not None}


def missing_path(path: str, missing: Missing) -> str:
    """Why an import path cannot work, and what was probably meant."""
    if not missing.place:
        beside = [file.stem for file in Path().glob("*.py")] + [folder.name for folder in Path().glob("*/")]
        near = nearest(missing.name, ["sgsd_lightning", *beside])
        meant = f"; did you mean {path.replace(missing.name, near, 1)}?" if near else ""
        return f"there is no module {missing.name}, in the current folder or installed, for {path}{meant}"
    return f"{missing.place} has no {missing.name}{suggestion(missing.name, missing.candidates, f'{missing.place}.')}"


@dataclass(frozen=True, slots=True)
class _Check:
    """The sources of one command line, one after the other."""

    accepted: Signature
    chosen: dict[str, str]
    """Place of a part to the class path that an earlier source chose for it."""

    def file(self, path: Path) -> None:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return
        if isinstance(content, Mapping):
            _Source(self, str(path), is_option=False).group(content, self.accepted, "")

    def option(self, name: str, value: str | None) -> None:
        content: Any = value
        if value is not None and value[:1] in ("{", "["):
            try:
                content = yaml.safe_load(value)
            except yaml.YAMLError:
                return
        for key in reversed(name.split(".")):
            content = {key: content}
        _Source(self, f"--{name}", is_option=True).group(content, self.accepted, "")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file, or an option with its value."""

    check: _Check
    name: str
    is_option: bool

    def group(self, content: Mapping[Any, Any], accepted: Signature, place: str, others: Sequence[str] = ()) -> None:
        """Settings of something whose arguments are known."""
        for written, value in content.items():
            key = str(written).removesuffix("+")
            where = f"{place}.{key}" if place else key
            if key in accepted.arguments:
                self.value(value, accepted.arguments[key], where)
            elif not accepted.is_open:
                self._refuse(key, [*others, *accepted.arguments], place)

    def value(self, value: Any, argument: Argument, where: str) -> None:
        """The setting of one argument."""
        kinds, is_callable = _kinds(argument)
        if isinstance(value, list):
            for element in value:
                if isinstance(element, Mapping) and "class_path" in element:
                    self.instance(element, None, f"{where}[]", False)
        elif isinstance(value, Mapping):
            if kinds and _is_group(argument, where):
                self.group(value, signature(kinds[0]), where)
            elif kinds or is_callable or "class_path" in value:
                self.instance(value, kinds[0] if len(kinds) == 1 else None, where, is_callable)
        elif isinstance(value, str) and (kinds or is_callable) and not value.endswith(BY_FILE):
            self._named(value, argument, where)

    def instance(self, content: Mapping[Any, Any], kind: Definition | None, where: str, is_callable: bool) -> None:
        """A class by its path, and its arguments."""
        path = content.get("class_path")
        chosen = self._choose(path, where) if isinstance(path, str) else self._chosen(where)
        if chosen is None and path is None and kind is not None and is_dataclass(kind):
            chosen = kind
        if chosen is None:
            return
        accepted = signature(chosen)
        arguments = content.get("init_args")
        if isinstance(arguments, Mapping):
            self.group(arguments, accepted, f"{where}.init_args")
        rest = {key: value for key, value in content.items() if key not in INSTANCE_KEYS}
        self.group(rest, accepted, where, others=() if is_dataclass(chosen) else INSTANCE_KEYS)

    def _named(self, value: str, argument: Argument, where: str) -> None:
        """A part by its import path, or by the name of its class alone.

        Raises:
            ValueError: if there is no such class.
        """
        if "." in value:
            self._choose(value, where)
            return
        part = _part_of(argument)
        if part is None or not value.isidentifier():
            return
        known = {path.rpartition(".")[2]: path for path in classes_of(part)}
        is_all_shipped = all(path.partition(".")[0] in SHIPPED for path in self.check.chosen.values())
        near = nearest(value, known)
        # a class of one's own goes by its name alone once its module was imported for another part
        if near is not None and value not in known and is_all_shipped and self.is_option:
            raise ValueError(f"{self.name}: there is no class {value}; did you mean {near}?")
        self.check.chosen[_plain(where)] = known.get(value, value)

    def _chosen(self, where: str) -> Definition | None:
        path = self.check.chosen.get(_plain(where))
        found = find(path) if path else None
        return found if isinstance(found, Definition) else None

    def _choose(self, path: str, where: str) -> Definition | None:
        """Note the class of a part.

        Raises:
            ValueError: if there is no such class.
        """
        self.check.chosen[_plain(where)] = path
        found = find(path)
        if isinstance(found, Missing):
            name = self.name if self.is_option else f"{self.name}: {where}"
            raise ValueError(f"{name}: {missing_path(path, found)}")
        return found

    def _refuse(self, key: str, known: Sequence[str], place: str) -> None:
        prefix, near = f"{place}." if place else "", nearest(key, known)
        if not self.is_option:
            told = suggestion(key, known, prefix, _lookup(place))
            raise ValueError(f"{self.name}: there is no setting {prefix}{key}{told}")
        _, _, rest = self.name.partition(f"{prefix}{key}")
        told = f"; did you mean --{prefix}{near}{rest}?" if near else suggestion(key, known, otherwise=_lookup(place))
        raise ValueError(f"there is no option --{prefix}{key}{rest}{told}")


def _lookup(place: str) -> str:
    return "; see sgsd help trainer" if place == "trainer" else "" if place else "; see sgsd fit --help"


def _check_words(shown: str, arguments: Sequence[str]) -> None:
    """Refuse what is neither an option nor the value of one."""
    is_value = False
    for word in arguments:
        is_option = word.startswith("-") and not _is_number(word)
        if is_option and not word.startswith(("--", "-c")):
            raise ValueError(f"there is no option {word.partition('=')[0]}; see {shown} --help")
        if not is_option and not is_value:
            known = (*all_configs(), *LAYERED)
            is_config = word in known or Path(word).is_file()
            told = f"; did you mean --config {word}?" if is_config else suggestion(word, known, "--config ")
            raise ValueError(
                f"{shown} takes options alone; got {word!r}{told if is_config or nearest(word, known) else ''}"
            )
        is_value = is_option and "=" not in word


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Flags with their values, whether in one argument or in two."""
    place = 0
    while place < len(arguments):
        flag, equals, value = arguments[place].partition("=")
        place += 1
        if not flag.startswith("-"):
            continue
        if not equals and place < len(arguments) and not arguments[place].startswith("-"):
            value, equals, place = arguments[place], "=", place + 1
        yield flag, value if equals else None


def _kinds(argument: Argument) -> tuple[list[Definition], bool]:
    """The classes that an annotation allows, and whether it wants a function of one argument that makes something."""
    leaves = list(_union(argument.annotation))
    names = {leaf.id for leaf in leaves if isinstance(leaf, ast.Name)}
    found = [resolve(argument.owner.module, leaf) for leaf in leaves]
    return [kind for kind in found if kind is not None and isinstance(kind.node, ast.ClassDef)], not names.isdisjoint(
        CALLABLES
    )


def _part_of(argument: Argument) -> Part | None:
    """The part that an argument takes."""
    for leaf in _union(argument.annotation):
        if isinstance(leaf, ast.Name) and leaf.id in CALLABLES:
            return PARTS[CALLABLES[leaf.id]]
    kinds = {kind.path for kind in _kinds(argument)[0]}
    for part in PARTS.values():
        base = find(part.base) if part.modules and part.base.startswith("sgsd_lightning.") else None
        if isinstance(base, Definition) and base.path in kinds:
            return part
    return None


def _union(node: ast.expr | None) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from _union(node.left)
        yield from _union(node.right)
    elif (
        isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in ("Optional", "Union")
    ):
        for inner in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
            yield from _union(inner)
    elif node is not None:
        yield node


def _is_group(argument: Argument, where: str) -> bool:
    """Whether settings stand right below: the trainer's and the callbacks', whose class is fixed."""
    return where == argument.name and argument.name not in ("model", "data")


def _plain(where: str) -> str:
    """``init_args`` may be left out."""
    return where.replace(".init_args", "")
