"""The checkout's files compile without a warning, and what they import from the standard library is there.

Run by an interpreter that has nothing installed, with the names of a standard library that has it all, by commas (the
oldest supported one's): a module that this Python dropped would otherwise pass for somebody's package.
"""

from __future__ import annotations

import ast
import importlib
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("sgsd_lightning", "kernels", "benchmarks", "tests", "examples", ".ci")


def main(standard: set[str]) -> int:
    """Check every file; the process's exit status."""
    warnings.simplefilter("error")
    files = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
    wrong = [f"{file.relative_to(ROOT)}: {told}" for file in files for told in complaints(file, standard)]
    print("\n".join([*wrong, f"Python {sys.version.split()[0]}: {len(files)} files, {len(wrong)} complaints"]))
    return 1 if wrong or not files else 0


def complaints(file: Path, standard: set[str]) -> list[str]:
    """What this Python has against one file."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        compile(tree, str(file), "exec")
    except (SyntaxError, SyntaxWarning, DeprecationWarning) as error:
        return [str(error)]
    told = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        told += [_missing(module, name) for module, name in wanted if module.split(".")[0] in standard]
    return [message for message in told if message]


def _missing(module: str, name: str | None) -> str | None:
    try:
        imported = importlib.import_module(module)
        if name is not None and not hasattr(imported, name):
            importlib.import_module(f"{module}.{name}")
    except (ImportError, DeprecationWarning) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(set(sys.argv[1].split(","))))
