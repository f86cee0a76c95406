"""Checkpoints that are folders of shards: how to recognise, replace and recover them."""

from __future__ import annotations

import shutil
from pathlib import Path

METADATA_FILENAME = "meta.pt"
"""The file of everything that is not sharded, in Lightning's layout."""
REPLACED_SUFFIX = ".old"


def is_sharded_checkpoint(path: Path) -> bool:
    """Whether ``path`` is a complete folder of shards."""
    return path.is_dir() and (path / METADATA_FILENAME).is_file()


def recovered(path: Path) -> Path:
    """Return ``path``, or the folder that was being replaced if a process died between the two renames."""
    replaced = path.with_name(path.name + REPLACED_SUFFIX)
    return replaced if not path.exists() and is_sharded_checkpoint(replaced) else path


def replace_checkpoint(partial: Path, path: Path) -> None:
    """Move a complete folder to ``path``, which may exist; `recovered` handles a stop between the two renames."""
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
