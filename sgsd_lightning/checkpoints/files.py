"""Checkpoints that are files: written beside their final path and moved there at once."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from sgsd_lightning.checkpoints.folders import recovered, replace_checkpoint
from sgsd_lightning.files import reason

PARTIAL_SUFFIX = ".partial"
UNREADABLE = (EOFError, RuntimeError, pickle.UnpicklingError)
"""What torch raises for a file that is no checkpoint, or an incomplete one."""


class WholeFileCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint to ``<name>.partial`` in its own folder, then renames it.

    Lightning's own writer holds a second copy of the checkpoint in memory and moves it from the system's temporary
    folder. Where that is another file system, the move is a copy, and a process that dies in it leaves half a file in
    the place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``checkpoint``; a failure leaves what was at ``path``.

        Raises:
            OSError: where it cannot be written, such as a full disk.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        partial = path.with_name(path.name + PARTIAL_SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.is_dir():  # a folder of shards, from another strategy
                shutil.rmtree(path)
            partial.replace(path)
            _sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            cause = _system_error(error)
            if cause is None:
                raise
            raise OSError(f"checkpoint {path} was not written: {reason(cause)}") from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load as Lightning does.

        Raises:
            ValueError: if the file is no checkpoint, or an incomplete one.
        """
        try:
            return super().load_checkpoint(path, map_location, weights_only)
        except UNREADABLE as error:
            raise ValueError(
                f"checkpoint {path} cannot be read: {type(error).__name__}, it may be cut short"
            ) from error


def copy_checkpoint(source: Path, target: Path) -> None:
    """Make ``target`` the same checkpoint as ``source``, a file or a folder of shards, in one move.

    Raises:
        OSError: if it cannot be written; ``target`` is then unchanged.
    """
    source, partial = recovered(source), target.with_name(target.name + PARTIAL_SUFFIX)
    try:
        _discard(partial)
        if source.is_dir():
            shutil.copytree(source, partial)
            replace_checkpoint(partial, target)
            return
        shutil.copyfile(source, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if target.is_dir():  # a folder of shards, from another strategy
            shutil.rmtree(target)
        partial.replace(target)
        _sync_folder(target.parent)
    except OSError as error:  # shutil's own is one
        _discard(partial)
        raise OSError(f"checkpoint {target} was not written: {reason(error)}") from error


def remove_partial(folder: Path) -> None:
    """Delete incomplete checkpoints that a killed process left in ``folder``."""
    for partial in folder.glob(f"*{PARTIAL_SUFFIX}"):
        _discard(partial)


def _discard(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)


def _system_error(error: BaseException | None) -> OSError | None:
    """Return the system's error that an error of torch's writer hides."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a loss of power, if the file system can synchronise folders."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
