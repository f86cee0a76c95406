"""The arguments of a class or function, with defaults and meaning, as its source text has them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from sgsd_lightning.cli.source.modules import Definition, Node, assigned_value, resolve

UNIVERSAL_BASES = {"object", "ABC", "Generic", "Protocol"}
SECTION = re.compile(r"^[A-Z][A-Za-z ]*:{1,2}$")
ENTRY = re.compile(r"^\*{0,2}(\w+)(?: \([^)]*\))?:(?: |$)")


@dataclass(frozen=True, eq=False, slots=True)
class Argument:
    """One argument of a call."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    """None for one that must be given."""
    owner: Definition
    """Whose text the annotation is read in."""
    meaning: str = ""

    @property
    def default_text(self) -> str:
        """As one would write it, shortened."""
        return "required" if self.default is None else _short(_written(_plain_default(self.owner, self.default)))

    @property
    def kind_text(self) -> str:
        """Its annotation, shortened; a name that stands for a choice of values is written out."""
        if isinstance(self.annotation, ast.Name):
            value = assigned_value(self.owner.module, self.annotation.id)
            if isinstance(value, ast.Subscript) and ast.unparse(value.value) == "Literal":
                return _short(ast.unparse(value.slice).strip("()").replace(", ", " | "), 90)
        return _short(ast.unparse(self.annotation), 70) if self.annotation is not None else ""


@dataclass(frozen=True, slots=True)
class Signature:
    """Of what a configuration can set."""

    arguments: Mapping[str, Argument]
    is_open: bool
    """Whether there may be more than the text shows: ``**kwargs``, a base class without source text."""


@cache
def signature(definition: Definition) -> Signature:
    """The arguments of calling a class or function."""
    node = definition.node
    if not isinstance(node, ast.ClassDef):
        return _of_function(definition, node)
    fields: dict[str, Argument] = {}
    for owner in lineage(definition):
        if owner is None:
            return Signature(fields, True)
        if "__new__" in _methods(owner):
            return Signature({}, True)
        constructor = _methods(owner).get("__init__")
        if constructor is not None:
            return _of_function(owner, constructor)
        if _is_dataclass(owner.node):
            fields = {**_fields(owner), **fields}
        elif owner.node.decorator_list:
            return Signature(fields, True)
    return Signature(fields, False)


def find_method(definition: Definition, name: str) -> Definition | None:
    """A method of a class, inherited ones included; None if it is not in the text."""
    owners = (owner for owner in lineage(definition) if owner is not None)
    return next((Definition(owner.module, _methods(owner)[name]) for owner in owners if name in _methods(owner)), None)


def lineage(definition: Definition) -> Iterator[Definition | None]:
    """A class and its bases, depth first; None stands for a base that cannot be read."""
    yield definition
    for base in getattr(definition.node, "bases", ()):
        plain = base.value if isinstance(base, ast.Subscript) else base
        if (plain.id if isinstance(plain, ast.Name) else getattr(plain, "attr", "")) in UNIVERSAL_BASES:
            continue
        found = resolve(definition.module, plain)
        if found is None:
            yield None
        else:
            yield from lineage(found)


def is_abstract(definition: Definition) -> bool:
    """Whether the class itself has methods that are to be written."""
    return any(
        ast.unparse(decorator).endswith("abstractmethod")
        for method in _methods(definition).values()
        for decorator in method.decorator_list
    )


def is_dataclass(definition: Definition) -> bool:
    """Whether a class is made by ``@dataclass``."""
    return _is_dataclass(definition.node)


def docstring(definition: Definition) -> str:
    """Cleaned; empty if there is none."""
    text = ast.get_docstring(definition.node) or _assigned_docstring(definition)
    return inspect.cleandoc(text)


def summary(definition: Definition) -> str:
    """The first sentence of the docstring, on one line."""
    paragraph = " ".join(docstring(definition).partition("\n\n")[0].split())
    return re.split(r"(?<=[.:;]) (?=[A-Z])", paragraph, maxsplit=1)[0].rstrip(".:")


def description(definition: Definition) -> str:
    """The docstring up to its list of arguments."""
    lines = docstring(definition).splitlines()
    end = next((place for place, line in enumerate(lines) if line in ("Args:", "Raises:", "Returns:")), len(lines))
    return "\n".join(lines[:end]).strip()


def _of_function(owner: Definition, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults += arguments.defaults
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    meanings = {**_meanings(docstring(owner)), **_meanings(inspect.cleandoc(ast.get_docstring(node) or ""))}
    is_open = arguments.vararg is not None or arguments.kwarg is not None
    found = {
        argument.arg: Argument(argument.arg, argument.annotation, default, owner, meanings.get(argument.arg, ""))
        for argument, default in pairs
        if argument.arg != "self"
    }
    return Signature(found, is_open)


def _fields(owner: Definition) -> dict[str, Argument]:
    """Of a dataclass; the string below a field says what it means."""
    fields: dict[str, Argument] = {}
    last = ""
    meanings = _meanings(docstring(owner))
    for statement in owner.node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            last = statement.target.id
            is_field = "ClassVar" not in ast.unparse(statement.annotation) and "init=False" not in ast.unparse(
                statement
            )
            if is_field:
                fields[last] = Argument(last, statement.annotation, statement.value, owner, meanings.get(last, ""))
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and last in fields:
            fields[last] = replace(fields[last], meaning=" ".join(str(statement.value.value).split()))
        else:
            last = ""
    return fields


def _methods(definition: Definition) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {
        part.name: part for part in definition.node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _is_dataclass(node: Node) -> bool:
    return any(re.match(r"(dataclasses\.)?dataclass\b", ast.unparse(decorator)) for decorator in node.decorator_list)


def _assigned_docstring(definition: Definition) -> str:
    """Of torch's optimizers, which set ``Class.__doc__`` below the class: its first string."""
    module = definition.module
    if module.path is None or f"{definition.node.name}.__doc__" not in (
        text := module.path.read_text(encoding="utf-8")
    ):
        return ""
    _, _, rest = text.partition(f"{definition.node.name}.__doc__")
    match = re.search(r'r?f?"""(.*?)"""', rest, re.DOTALL)
    return match[1] if match else ""


def _meanings(text: str) -> dict[str, str]:
    """Of a docstring with a section ``Args:``."""
    lines = iter(text.splitlines())
    if not any(line.strip() in ("Args:", "Arguments:") for line in lines):
        return {}
    found: dict[str, str] = {}
    indent, name = 0, ""
    for line in lines:
        depth, words = len(line) - len(line.lstrip()), line.strip()
        if words and depth == 0:
            break
        indent = indent or depth
        entry = ENTRY.match(words)
        if entry and depth == indent:
            name = entry[1]
            found[name] = words[entry.end() :]
        elif name and words:
            found[name] = f"{found[name]} {words}".strip()
        elif not words and name:
            found[name] = found[name].strip()
    return found


def _plain_default(owner: Definition, node: ast.expr) -> ast.expr:
    """What stands behind ``field(default_factory=…)``, a lambda, or an attribute of a class of defaults."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "field":
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "default_factory" in given:
            return ast.Call(func=given["default_factory"], args=[], keywords=[])
        return given.get("default", node)
    if isinstance(node, ast.Lambda):
        return node.body
    if isinstance(node, ast.Attribute):
        holder = resolve(owner.module, node.value)
        field = _fields(holder).get(node.attr) if holder is not None else None
        return field.default if field is not None and field.default is not None else node
    return node


def _written(node: ast.expr) -> str:
    """As YAML has it."""
    text = ast.unparse(node)
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def _short(text: str, width: int = 48) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
