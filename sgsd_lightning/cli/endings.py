"""What a command that read a configuration says at its end: what it found, what it wrote, what to run next."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from sgsd_lightning.callbacks import BestCheckpoint
from sgsd_lightning.callbacks.rollout_table import PREDICTIONS
from sgsd_lightning.cli.saved_config import CONFIG_FILE

if TYPE_CHECKING:
    from sgsd_lightning.cli.lightning_cli import SelfDistillationCLI

EVALUATIONS = {"validate": "val/", "test": "test/"}
"""Commands that evaluate once, and what their metrics begin with."""


def say_what_was_done(cli: SelfDistillationCLI) -> None:
    """Print it, on the first process; `evaluate`, `export` and our other commands have said it themselves."""
    trainer = cli.trainer
    if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
        return
    folder = Path(trainer.default_root_dir)
    if cli.subcommand == "fit":
        print(fit_ending(folder, _best(trainer), has_test_problems=cli.datamodule.sources["test"] is not None))
    elif cli.subcommand in EVALUATIONS:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        _say_evaluation(cli, folder / f"{cli.subcommand}.json", of_stage(metrics, EVALUATIONS[cli.subcommand]))
    elif cli.subcommand == "predict":
        files = sorted(folder.glob(f"{PREDICTIONS}*.jsonl"))
        num_rows = sum(1 for file in files for _ in file.open("rb"))
        print(f"wrote {num_rows} completions to {', '.join(map(shown, files))}")


def fit_ending(folder: Path, best: str | None, *, has_test_problems: bool) -> str:
    """Return where the run is, its best evaluation, and two commands that take it further.

    Args:
        folder: of the run.
        best: its best checkpoint; None without an evaluation.
        has_test_problems: whether the configuration names any, which `evaluate` would take.
    """
    config = f"--config {quoted(folder / CONFIG_FILE)} --ckpt_path {'last' if best is None else 'best'}"
    export = f"sgsd export {config} --folder {quoted(folder / 'model')}"
    further = f"sgsd evaluate {config}" if has_test_problems else export
    lines = [f"run folder  {shown(folder)}"]
    lines += [] if best is None else [f"best        {best}"]
    return "\n".join([*lines, f"next        sgsd report {quoted(folder)}", f"            {further}"])


def of_stage(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Return the metrics of one stage, without its name."""
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def metrics_table(metrics: Mapping[str, float]) -> str:
    """Return one line per metric, with four significant digits."""
    width = max(map(len, metrics), default=0)
    return "\n".join(f"{name:{width}}  {value:.4g}" for name, value in metrics.items())


def shown(path: Path) -> str:
    """Return a path as it is typed here: relative to the current folder, where it lies inside it."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


def quoted(path: Path) -> str:
    """Return :func:`shown` as a word of a command line."""
    return shlex.quote(shown(path))


def _best(trainer: Trainer) -> str | None:
    """The best evaluation of a run that has one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, BestCheckpoint) and callback.score is not None and callback.metric is not None:
            name, file = callback.metric.rpartition("/")[2], shown(Path(callback.best_model_path))
            return f"{name} {callback.score:.4g} at step {callback.step} ({file})"
    return None


def _say_evaluation(cli: SelfDistillationCLI, file: Path, metrics: Mapping[str, float]) -> None:
    source: dict[str, Any] = {} if cli.source is None else cli.source.to_json()
    file.write_text(json.dumps({**source, "metrics": dict(metrics)}, indent=2) + "\n", encoding="utf-8")
    if cli.prints_results:
        print(metrics_table(metrics))
        print(f"wrote {shown(file)}")
