"""The line of progress: within 80 columns on a terminal, plain lines now and then in a file."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from sgsd_lightning.callbacks.defaults import with_progress
from sgsd_lightning.callbacks.progress import CLEAR_LINE, ProgressLine, progress_text, total_steps

SHOWN = {
    "val/avg@k": 0.734375,
    "objective/loss": -0.012345678901234567,
    "rollout/reward_mean": 0.625,
    "objective/helpful_frac": 0.41015625,
}


class Screen(io.StringIO):
    """Standard output that is a terminal, or is not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def screen(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> Screen:
    """Standard output from here on, 80 columns wide; not in a fixture, after which pytest sets its own."""
    monkeypatch.setenv("COLUMNS", "80")
    found = Screen(is_terminal)
    monkeypatch.setattr("sys.stdout", found)
    return found


def a_trainer(**changes: Any) -> Any:
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    settings = {"max_steps": 200, "max_epochs": -1, "num_training_batches": 50, "accumulate_grad_batches": 2}
    reported = {"progress_bar_metrics": {}, "global_step": 0, "num_val_batches": [3], "is_global_zero": True}
    return SimpleNamespace(**{**settings, **reported, "state": state, "sanity_checking": False, **changes})


def train(line: ProgressLine, trainer: Any, num_steps: int) -> None:
    line.setup(trainer, None, "fit")  # type: ignore[arg-type]
    line.on_train_start(trainer, None)  # type: ignore[arg-type]
    for step in range(1, num_steps + 1):
        trainer.global_step, trainer.progress_bar_metrics = step, SHOWN
        line.on_step(trainer, None, None)  # type: ignore[arg-type]


def test_a_line_has_short_names_and_few_digits() -> None:
    line = progress_text(12, 40, SHOWN, 92.4, None)
    assert line == "step 12/40  loss -0.0123  reward 0.625  helpful 0.41  avg@k 0.734  0:01:32 left"
    assert progress_text(3, None, {"mine/depth": 2.0}, None, None) == "step 3  depth 2"


@pytest.mark.parametrize("width", [79, 60, 20, 5])
def test_what_does_not_fit_is_left_out_from_the_end(width: int) -> None:
    whole = progress_text(199_999, 200_000, SHOWN, 9e5, None)
    line = progress_text(199_999, 200_000, SHOWN, 9e5, width)
    assert len(line) <= width < len(whole)
    assert whole.startswith(line)


def test_a_terminal_has_one_line_that_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screen(monkeypatch, is_terminal=True)
    line = ProgressLine(clock=iter(range(1000)).__next__)
    trainer = a_trainer(max_steps=3)
    train(line, trainer, 3)
    trainer.num_val_batches = [7]
    line.on_validation_batch_end(trainer, None, None, None, 1)  # type: ignore[arg-type]
    during = terminal.getvalue()
    assert "\n" not in during
    line.on_validation_end(trainer, None)  # type: ignore[arg-type]
    line.on_train_end(trainer, None)  # type: ignore[arg-type]
    drawn = [text.strip("\r\n") for text in terminal.getvalue().split(CLEAR_LINE) if text]
    assert all(len(text) < 80 for text in drawn)
    assert drawn[0] == "step 0/3"
    assert drawn[-3] == "step 3/3  evaluating 2/7"
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().endswith("avg@k 0.734\n")


def test_a_file_has_the_first_and_last_steps_evaluations_and_a_line_every_half_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = screen(monkeypatch, is_terminal=False)
    seconds = [0.0]
    line = ProgressLine(clock=lambda: seconds[0])
    trainer = a_trainer(max_steps=9)
    line.setup(trainer, None, "fit")  # type: ignore[arg-type]
    line.on_train_start(trainer, None)  # type: ignore[arg-type]
    for step in range(1, 10):
        seconds[0] += 10.0
        trainer.global_step, trainer.progress_bar_metrics = step, SHOWN
        line.on_step(trainer, None, None)  # type: ignore[arg-type]
        if step == 6:
            line.on_validation_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
            line.on_validation_end(trainer, None)  # type: ignore[arg-type]
    line.on_train_end(trainer, None)  # type: ignore[arg-type]
    said = file.getvalue()
    assert "\r" not in said
    assert "\x1b" not in said
    assert re.findall(r"^step (\d)/9  loss", said, re.MULTILINE) == ["1", "4", "6", "9"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_other_processes_and_a_line_that_is_off_say_nothing(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    said = screen(monkeypatch, is_terminal)
    line = ProgressLine()
    trainer = a_trainer(is_global_zero=False)
    train(line, trainer, 2)
    line.print("a word")
    line.teardown(trainer, None, "fit")  # type: ignore[arg-type]
    assert not said.getvalue()
    line.enable()
    line.on_step(trainer, None, None)  # type: ignore[arg-type]
    assert said.getvalue()


@pytest.mark.parametrize(
    ("limits", "total"),
    [
        ({"max_steps": 7}, 7),
        ({"max_steps": -1, "max_epochs": 2, "num_training_batches": 5}, 6),
        ({"max_steps": 4, "max_epochs": 2, "num_training_batches": 5}, 4),
        ({"max_steps": -1, "max_epochs": 2, "num_training_batches": float("inf")}, None),
        ({"max_steps": -1, "max_epochs": -1}, None),
        ({"max_steps": -1, "max_epochs": None}, None),
    ],
)
def test_the_whole_is_what_ends_the_run(limits: dict[str, Any], total: int | None) -> None:
    assert total_steps(a_trainer(**limits)) == total


def test_a_bar_of_ones_own_stays_and_none_is_none() -> None:
    own, other = TQDMProgressBar(), EarlyStopping("loss")
    assert with_progress([own, other], None) == [own, other]
    assert with_progress([other], False) == [other]
    assert [type(callback) for callback in with_progress([other], True)] == [EarlyStopping, ProgressLine]
