"""Notices that a process of the run has died, also while this one waits for it in a collective."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from sgsd_lightning.callbacks.checkpoint import RunCheckpoint

POLL_SECONDS = 1.0
GRACE_SECONDS = 10.0
"""How long a process whose launcher died may take to end by itself; a broken connection usually ends it at once."""


class Watchdog(Callback):
    """Says which process died, and sees that processes which Lightning started do not outlive the first.

    The first process is ended by Lightning's own observer within seconds of a death, without a word of what is safe;
    the others would wait for their process group's timeout if the first is gone. Processes that torchrun or SLURM
    started are theirs to end.
    """

    def __init__(self) -> None:
        self._is_over = threading.Event()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        children = getattr(trainer.strategy.launcher, "procs", None)
        self._is_over.clear()
        if children:
            self._start(self._watch_children, trainer, children)
        elif trainer.local_rank > 0 and "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
            self._start(self._watch_parent, trainer, os.getppid())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_over.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._is_over.set()

    def _start(self, *work: object) -> None:
        target, *arguments = work
        assert callable(target)
        threading.Thread(target=target, args=arguments, daemon=True, name="sgsd-process-watch").start()

    def _watch_children(self, trainer: Trainer, children: Sequence[subprocess.Popen[bytes]]) -> None:
        while not self._is_over.wait(POLL_SECONDS):
            for index, child in enumerate(children):
                if child.poll():
                    _say(f"process {index + 1} of this run died (status {child.returncode})", trainer)
                    return

    def _watch_parent(self, trainer: Trainer, parent: int) -> None:
        while not self._is_over.wait(POLL_SECONDS):
            if os.getppid() != parent:
                if not self._is_over.wait(GRACE_SECONDS):
                    _say("the first process of this run died", trainer)
                    os._exit(1)
                return


def _say(what: str, trainer: Trainer) -> None:
    safe = [c.resume_hint(trainer) for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)]
    message = ". ".join([what, *filter(None, safe)])
    print(f"sgsd (process {trainer.global_rank}): {message}", file=sys.stderr, flush=True)
