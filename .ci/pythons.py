"""Which interpreters this machine has, by version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LABEL = "Programming Language :: Python :: "
VERSIONS = [label.removeprefix(LABEL) for label in PROJECT["classifiers"] if label.startswith(LABEL)]
"""Those that the project is for."""


def interpreter(version: str) -> str | None:
    """A Python of this version: this one, one on the path, or one that pyenv keeps; None if there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept = sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    for candidate in (shutil.which(f"python{version}"), *map(str, kept)):
        if candidate and _runs(candidate):
            return candidate
    return None


def _runs(python: str) -> bool:
    """False for pyenv's shims of versions that are not chosen."""
    return subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode == 0
