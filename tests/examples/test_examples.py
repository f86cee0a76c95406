"""Three ways to the same numbers: the command line, ten lines of Python, and a loop without a trainer."""

from __future__ import annotations

import csv
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning import pytorch as lightning
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import SaveConfigCallback

import sgsd_lightning
from examples.sgsd_loop import train
from sgsd_lightning.callbacks import BestCheckpoint, CollapseGuard, RunCheckpoint
from sgsd_lightning.callbacks.defaults import RUN_CALLBACKS, default_callbacks
from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import resolve_config
from sgsd_lightning.cli.lightning_cli import run

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NUM_STEPS = 2
SHORT = [f"--trainer.max_steps={NUM_STEPS}", "--trainer.enable_progress_bar=false"]


def losses(run_folder: Path) -> list[float]:
    """Of every step, as the run's table has them."""
    (table,) = run_folder.glob("metrics/version_*/metrics.csv")
    with table.open(newline="") as lines:
        return [float(row["objective/loss"]) for row in csv.DictReader(lines) if row.get("objective/loss")]


def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every `Trainer` that is made stop after a few steps, without a word."""
    full = sgsd_lightning.Trainer
    limits = {"max_steps": NUM_STEPS, "enable_progress_bar": False, "enable_model_summary": False}
    monkeypatch.setattr(sgsd_lightning, "Trainer", lambda **settings: full(**{**settings, **limits}))


def test_three_ways_to_the_same_run(quick_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_command = run(["fit", f"--config={resolve_config('sgsd_toy')}", *SHORT]).trainer
    expected = losses(quick_toy / "runs/sgsd_toy")
    assert len(expected) == NUM_STEPS
    assert all(expected)
    few_steps(monkeypatch)
    by_python = runpy.run_path(str(EXAMPLES / "quickstart.py"))["trainer"]
    assert losses(quick_toy / "runs/quickstart") == expected
    assert [loss for loss, _ in train(NUM_STEPS)] == expected
    assert made_of(by_python) == made_of(by_command)


def made_of(trainer: lightning.Trainer) -> dict[str, Any]:
    """What the command line and Python must not differ in."""
    callbacks = [type(callback) for callback in trainer.callbacks if not isinstance(callback, SaveConfigCallback)]
    folders = {
        type(callback).__name__: Path(callback.dirpath).relative_to(trainer.default_root_dir)
        for callback in trainer.callbacks
        if isinstance(callback, RunCheckpoint | BestCheckpoint)
    }
    connector = trainer._accelerator_connector
    return {
        "callbacks": {kind for kind in callbacks if not issubclass(kind, ProgressBar)},
        "loggers": [type(logger) for logger in trainer.loggers],
        "folders": folders,
        "settings": (trainer.log_every_n_steps, connector.use_distributed_sampler),
    }


def test_the_trainer_refuses_what_the_command_line_refuses(quick_toy: Path) -> None:
    last = quick_toy / "run/checkpoints/last.ckpt"
    trainer = sgsd_lightning.Trainer(default_root_dir="run", accelerator="cpu", logger=False)
    with pytest.raises(FileNotFoundError, match="there is no"):
        trainer.fit(None, ckpt_path="last")
    last.parent.mkdir(parents=True)
    last.write_bytes(b"")
    with pytest.raises(FileExistsError, match="already holds a run"):
        trainer.fit(None)


def test_a_callback_of_ones_own_takes_the_place_of_the_default() -> None:
    own = CollapseGuard(action="stop")
    callbacks = default_callbacks([own, WithoutPlace()])
    assert [type(callback) for callback in callbacks] == [*RUN_CALLBACKS.values(), WithoutPlace]
    assert own in callbacks


class WithoutPlace(Callback):
    """A callback of no default's class."""


def test_a_method_of_ones_own_trains(quick_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--config=sgsd_toy", f"--config={EXAMPLES / 'my_method.yaml'}", *SHORT]
    assert main(["fit", *arguments]) == 0
    assert len(losses(quick_toy / "runs/sgsd_toy-my_method")) == NUM_STEPS


@pytest.mark.parametrize(("name", "most"), [("sgsd_loop", 150), ("my_method", 60), ("quickstart", 40)])
def test_an_example_fits_a_screen_or_two(name: str, most: int) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= most


def test_the_readme_shows_the_quickstart() -> None:
    code = (EXAMPLES / "quickstart.py").read_text().split("\n\n", 1)[1]
    assert f"```python\n{code}```" in (ROOT / "README.md").read_text()


def test_public_names_are_loaded_when_they_are_used() -> None:
    code = "import sys, sgsd_lightning; assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert set(sgsd_lightning.__all__) == set(sgsd_lightning._PLACES) <= set(dir(sgsd_lightning))
    for name in sgsd_lightning.__all__:
        assert getattr(sgsd_lightning, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Student'"):
        sgsd_lightning.Student  # noqa: B018
