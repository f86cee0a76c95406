"""Checkpoints that are folders of shards: how they differ from files, and which one counts."""

from __future__ import annotations

import shutil
from pathlib import Path

METADATA_FILENAME = "meta.pt"
"""What is not sharded, in Lightning's layout."""
REPLACED_SUFFIX = ".old"


def is_sharded_checkpoint(path: Path) -> bool:
    """Whether ``path`` is a complete folder of shards."""
    return path.is_dir() and (path / METADATA_FILENAME).is_file()


def recovered(path: Path) -> Path:
    """``path``, or the folder that it was about to replace when a process died between the two renames."""
    replaced = path.with_name(path.name + REPLACED_SUFFIX)
    return replaced if not path.exists() and is_sharded_checkpoint(replaced) else path


def replace_checkpoint(partial: Path, path: Path) -> None:
    """Put a complete folder where an older one may stand; `recovered` knows of the moment in between."""
    old = path.with_name(path.name + REPLACED_SUFFIX)
    if old.exists():
        shutil.rmtree(old)
    if path.is_dir():
        path.rename(old)
    elif path.exists():
        path.unlink()
    partial.rename(path)
    if old.exists():
        shutil.rmtree(old)
