"""A gradient that is no number: the step is left out as if it had not been, or the run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from sgsd_lightning.callbacks import NonfiniteLoss
from sgsd_lightning.callbacks.nonfinite_loss import NonfiniteLossError
from sgsd_lightning.module import SelfDistillation
from tests.support.runs import Run, data_of, tiny_run


class Poison(Callback):
    """Puts one infinity into the gradient of some steps, counted from 1, and keeps the weights of every step."""

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps
        self.weights: list[dict[str, Tensor]] = []

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step + 1 in self.steps:
            gradient = next(parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None)
            gradient.view(-1)[0] = float("inf")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.weights.append({name: weight.detach().clone() for name, weight in pl_module.named_parameters()})


def fit(folder: Path, watch: NonfiniteLoss, steps: set[int], max_steps: int = 3) -> tuple[Poison, Trainer]:
    poison = Poison(steps)
    run = Run(trainer=lambda: {"callbacks": [poison, watch], "gradient_clip_val": 0.1}, max_steps=max_steps)
    module, trainer, _ = tiny_run(run, 1, folder)
    assert isinstance(module, SelfDistillation)
    trainer.fit(module, datamodule=data_of(run, 1))
    return poison, trainer


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return any(not torch.equal(weight, after[name]) for name, weight in before.items())


def test_a_skipped_step_changes_neither_weights_nor_optimizer(tmp_path: Path) -> None:
    watch = NonfiniteLoss(action="skip")
    poison, trainer = fit(tmp_path, watch, {2})
    assert not changed(poison.weights[0], poison.weights[1])
    assert changed(poison.weights[1], poison.weights[2])
    assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {2}
    assert watch.state_dict() == {"num_skipped": 1, "num_consecutive": 0}
    assert trainer.callback_metrics["objective/skipped_steps"] == 1


def test_a_run_stops_at_once_or_after_too_many_skipped_steps(tmp_path: Path) -> None:
    with pytest.raises(NonfiniteLossError, match="the gradient of step 2 is not finite, while its loss is; it did not"):
        fit(tmp_path, NonfiniteLoss(), {2})
    with pytest.raises(NonfiniteLossError, match=r"of step 3 is not finite, .* as were the 2 steps before, which were"):
        fit(tmp_path, NonfiniteLoss(action="skip", max_consecutive=2), {1, 2, 3})


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"nonfinite_loss\.action must be one of .*; got 'ignore'"):
        NonfiniteLoss(action="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"nonfinite_loss\.max_consecutive must be at least 1; got 0"):
        NonfiniteLoss(max_consecutive=0)
