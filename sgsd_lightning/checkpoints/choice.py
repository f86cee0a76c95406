"""Which checkpoint a run starts from: ``last``, ``best``, a path, or none in a folder that holds no run yet."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sgsd_lightning.checkpoints.folders import is_sharded_checkpoint, recovered

LAST_FILENAME = "last.ckpt"
BEST_FILENAME = "best.ckpt"


def chosen_checkpoint(asked: str | None, last: Path, best: Path) -> str | None:
    """Return the path that ``last`` or ``best`` names; any other value unchanged.

    Raises:
        FileNotFoundError: if the run has written no such checkpoint.
    """
    named = {"last": last, "best": best}
    return str(_existing(recovered(named[asked]))) if asked in named else asked


def checkpoint_of_new_fit(run_folder: Path, last: Path) -> str | None:
    """Return the checkpoint for a fit that names none: None, or ``last`` if SLURM restarted the job.

    Raises:
        FileExistsError: if the folder already holds a run.
    """
    last = recovered(last)
    if not last.exists():
        return None
    if int(os.environ.get("SLURM_RESTART_COUNT", 0)):  # the same command line again, by the scheduler
        # Lightning finds its own by itself
        return None if _has_newer(run_folder.glob("hpc_ckpt_*.ckpt"), last) else str(_existing(last))
    raise FileExistsError(
        f"{run_folder} already holds a run ({last}). Resume it with --ckpt_path last, remove it, or choose another "
        "folder with --trainer.default_root_dir"
    )


def _has_newer(checkpoints: Iterable[Path], than: Path) -> bool:
    return any(checkpoint.stat().st_mtime > than.stat().st_mtime for checkpoint in checkpoints)


def _existing(checkpoint: Path) -> Path:
    if not checkpoint.is_file() and not is_sharded_checkpoint(checkpoint):
        raise FileNotFoundError(
            f"--ckpt_path {checkpoint.stem}: there is no {checkpoint}; start the run without --ckpt_path first"
        )
    return checkpoint
