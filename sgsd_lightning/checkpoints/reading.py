"""Reads checkpoints outside a training run: single files, and folders of shards in one process without a group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from sgsd_lightning.checkpoints.files import UNREADABLE
from sgsd_lightning.checkpoints.folders import METADATA_FILENAME, is_sharded_checkpoint, recovered

WEIGHTS = "state_dict"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint without optimizer states; weights are gathered and on the CPU, whatever strategy wrote it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read.
    """
    path = recovered(path)
    checkpoint = load_unsharded_part(path)
    if path.is_dir():
        checkpoint[WEIGHTS] = _load_weights(path)
    return checkpoint


def load_unsharded_part(path: Path) -> dict[str, Any]:
    """Load everything that is not sharded; for a single file that is all of it, with tensors read lazily.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read.
    """
    if path.is_dir() and not is_sharded_checkpoint(path):
        raise FileNotFoundError(f"--ckpt_path {path}: the folder is not a complete checkpoint (no {METADATA_FILENAME})")
    file = path / METADATA_FILENAME if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"--ckpt_path {path}: no such checkpoint")
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (*UNREADABLE, ValueError) as error:
        raise ValueError(f"--ckpt_path {path} cannot be read: {type(error).__name__}, it may be cut short") from error
    return checkpoint


def _load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor under ``state_dict``, gathered from its shards."""
    reader = FileSystemReader(path)
    weights = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype)
        for name, stored in reader.read_metadata().state_dict_metadata.items()
        if name.startswith(f"{WEIGHTS}.") and isinstance(stored, TensorStorageMetadata)
    }
    load(weights, storage_reader=reader, no_dist=True)
    return {name.removeprefix(f"{WEIGHTS}."): weight for name, weight in weights.items()}
