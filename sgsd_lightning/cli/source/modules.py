"""Modules as source text: which names they define, and where an import path leads."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OUR_PACKAGE = "sgsd_lightning"
MAX_HOPS = 20
"""Re-exports that are followed before a name counts as unknown."""

Node = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False, slots=True)
class Module:
    """One parsed file."""

    name: str
    path: Path | None
    """None for a folder without ``__init__.py``."""
    is_package: bool
    defined: dict[str, ast.stmt]
    """Every name of the top level, with the statement that makes it."""
    exported: tuple[str, ...]
    """``__all__``, if that is a list of strings."""
    is_open: bool
    """Whether it may hold names that the text does not show."""


@dataclass(frozen=True, eq=False, slots=True)
class Definition:
    """A class or function, and the module in whose names its text is to be read."""

    module: Module
    node: Node

    @property
    def path(self) -> str:
        """Where it is defined."""
        return f"{self.module.name}.{self.node.name}"


@dataclass(frozen=True, slots=True)
class Missing:
    """An import path that cannot work."""

    place: str
    """The last part that is there: a module; empty if not even the first part is."""
    name: str
    """The first part that is not."""
    candidates: tuple[str, ...]
    """What ``place`` has instead."""


def find(path: str) -> Definition | Missing | None:
    """Where an import path leads; None where only an import could say."""
    parts = path.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    found = read_module(parts[0])
    if found is None:
        return Missing("", parts[0], ()) if _is_nowhere(parts[0]) else None
    for place, name in enumerate(parts[1:], start=1):
        inner = read_module(f"{found.name}.{name}") if found.is_package else None
        if name in found.defined and (inner is None or place == len(parts) - 1):
            return _follow(found, name) if place == len(parts) - 1 else None
        if inner is None:
            return None if _may_have(found, name) else Missing(found.name, name, names_of(found))
        found = inner
    return None


def resolve(module: Module, node: ast.expr) -> Definition | None:
    """The class or function that a name of a module's text stands for."""
    if isinstance(node, ast.Name):
        return _follow(module, node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        statement = module.defined.get(node.value.id)
        target = _imported_module(module, statement, node.value.id)
        inner = read_module(target) if target else None
        return None if inner is None else _follow(inner, node.attr)
    return None


def assigned_value(module: Module, name: str) -> ast.expr | None:
    """What a name of a module's text is set to, there or where it comes from."""
    statement = _origin(module, name, MAX_HOPS)[1]
    return statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None


def names_of(module: Module) -> tuple[str, ...]:
    """What one would name of a module: its ``__all__`` or else its public names, and the modules of a package."""
    names = dict.fromkeys(module.exported or sorted(module.defined))
    if module.is_package:
        inside = (path for folder in _folders(module.name) for path in sorted(folder.iterdir()))
        names |= dict.fromkeys(path.stem for path in inside if path.suffix == ".py" or (path / "__init__.py").is_file())
    return tuple(name for name in names if not name.startswith("_"))


@cache
def read_module(name: str) -> Module | None:
    """A module by its full name; None if there is no source text of it."""
    top, _, rest = name.partition(".")
    origin, folders = _top_level(top)
    is_package = bool(folders)
    for part in rest.split(".") if rest else ():
        origin, folders = _inside(folders, part)
        is_package = bool(folders)
    if origin is None:
        return Module(name, None, True, {}, (), False) if is_package else None
    try:
        text = origin.read_bytes()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return None
    defined = {bound: statement for statement in _statements(tree.body) for bound in _bound_names(statement)}
    exported = _strings(getattr(defined.get("__all__"), "value", None))
    # our own lazy packages say in __all__ what there is
    exported_by_us = bool(exported) and top == OUR_PACKAGE
    is_open = ("__getattr__" in defined or "*" in defined or b"globals()" in text) and not exported_by_us
    return Module(name, origin, is_package, defined, exported, is_open)


def _top_level(name: str) -> tuple[Path | None, Sequence[Path]]:
    spec = _spec(name)
    if spec is None:
        return None, ()
    folders = tuple(Path(folder) for folder in spec.submodule_search_locations or ())
    origin = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    return origin, folders


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def _is_nowhere(name: str) -> bool:
    return name not in sys.modules and name not in sys.builtin_module_names and _spec(name) is None


def _inside(folders: Sequence[Path], name: str) -> tuple[Path | None, Sequence[Path]]:
    """A module or package in the folders of another."""
    for folder in folders:
        if (folder / name / "__init__.py").is_file():
            return folder / name / "__init__.py", (folder / name,)
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py", ()
    return None, tuple(folder / name for folder in folders if (folder / name).is_dir())


def _folders(name: str) -> Sequence[Path]:
    top, *rest = name.split(".")
    _, folders = _top_level(top)
    for part in rest:
        _, folders = _inside(folders, part)
    return folders


def _may_have(module: Module, name: str) -> bool:
    loaded = sys.modules.get(module.name)
    return module.is_open or (loaded is not None and hasattr(loaded, name)) or _is_compiled(module, name)


def _is_compiled(module: Module, name: str) -> bool:
    return any(any(folder.glob(f"{name}.*")) for folder in _folders(module.name))


def _follow(module: Module, name: str) -> Definition | None:
    source, statement = _origin(module, name, MAX_HOPS)
    return Definition(source, statement) if isinstance(statement, Node) else None


def _origin(module: Module, name: str, hops: int) -> tuple[Module, ast.stmt | None]:
    """The statement that makes a name, followed through imports."""
    statement = module.defined.get(name)
    if not isinstance(statement, ast.ImportFrom) or hops == 0:
        return module, statement
    origin = next((alias.name for alias in statement.names if (alias.asname or alias.name) == name), name)
    source = read_module(_source_of(module, statement))
    return (module, None) if source is None else _origin(source, origin, hops - 1)


def _source_of(module: Module, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    package = module.name.split(".")
    package = package[: len(package) - statement.level + (1 if module.is_package else 0)]
    return ".".join([*package, *([statement.module] if statement.module else [])])


def _imported_module(module: Module, statement: ast.stmt | None, name: str) -> str | None:
    if isinstance(statement, ast.Import):
        return next((alias.name if alias.asname else name for alias in statement.names if _bound(alias) == name), None)
    if isinstance(statement, ast.ImportFrom):
        origin = next((alias.name for alias in statement.names if _bound(alias) == name), name)
        return f"{_source_of(module, statement)}.{origin}"
    return None


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of the top level, also inside ``if``, ``try`` and ``with``."""
    for statement in body:
        yield statement
        for name in ("body", "orelse", "finalbody", "handlers"):
            inner = getattr(statement, name, ())
            if not isinstance(statement, Node):
                for part in inner:
                    yield from _statements(part.body if isinstance(part, ast.ExceptHandler) else [part])


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, Node):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (
            _bound(alias) if isinstance(statement, ast.Import) else alias.asname or alias.name
            for alias in statement.names
        )
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            nodes = (node for node in ast.walk(target) if isinstance(node, ast.Name))
            yield from (node.id for node in nodes if isinstance(node.ctx, ast.Store))


def _strings(node: ast.expr | None) -> tuple[str, ...]:
    """The elements of a list or tuple of strings."""
    elements = node.elts if isinstance(node, ast.List | ast.Tuple) else []
    return tuple(
        element.value for element in elements if isinstance(element, ast.Constant) and isinstance(element.value, str)
    )
