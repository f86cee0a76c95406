"""Runs of a study in processes side by side, with what is done, what is left and how long it may take."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sgsd_lightning.cli.study.run_variant import StudyRun, run_variant


def do_runs(runs: Sequence[StudyRun], jobs: int, log: Path) -> dict[Path, str]:
    """Do what is not done yet; a run that fails ends no other.

    Stopped (Ctrl-C), the study has lost the runs that were under way; called again, it resumes.

    Args:
        runs: in the order in which they are to be done.
        jobs: processes at a time.
        log: what the runs print goes here.

    Returns:
        By folder, why a run failed.
    """
    waiting = {run.folder: run for run in runs if run.result is None}
    failures: dict[Path, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False)) as progress:
        task = progress.add_task("runs", total=len(waiting))
        # forks of a process that has done the imports alone: a fork of one that has run torch's threads may hang
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sgsd_lightning.cli.lightning_cli"])
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(log,)) as pool:
            futures: dict[Future[None], StudyRun] = {pool.submit(run_variant, run): run for run in waiting.values()}
            try:
                for future in as_completed(futures):
                    run = futures[future]
                    error = future.exception()
                    if error is not None:
                        failures[run.folder] = f"{run.variant.name}, seed {run.seed}: {type(error).__name__}: {error}"
                    progress.update(task, advance=1, description=f"{run.variant.group}: {run.variant.name}")
            except KeyboardInterrupt:
                for process in multiprocessing.active_children():
                    process.terminate()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return failures


def _begin(log: Path) -> None:
    """A worker: its words go to the log, and only its parent heeds Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
