"""A run that ended with an epoch and is resumed for more steps begins the next one, as if it had never ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sgsd_lightning.callbacks import RunCheckpoint
from tests.support.runs import Run, data_of, outcome, tiny_run, whole

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "a whole epoch": ({}, {}, 3),
    "an epoch that the trainer cuts": ({"limit_train_batches": 2}, {}, 2),
    "a last, short step": (
        {"accumulate_grad_batches": 2},
        {"global_batch": 2, "num_problems": 7, "drop_last": False},
        2,
    ),
}
"""Settings of the trainer and of the run, and the steps of an epoch."""


@pytest.mark.parametrize("name", list(CASES))
def test_a_run_of_more_steps_equals_one_that_never_ended(name: str, tmp_path: Path) -> None:
    trainer, settings, steps_of_epoch = CASES[name]
    run = Run(trainer=lambda: trainer, max_steps=steps_of_epoch + 2, **settings)
    expected = outcome(run, 1, tmp_path)["weights"]

    def fit(max_steps: int, ckpt_path: str | None = None) -> Any:
        saves = {"enable_checkpointing": True, "callbacks": [RunCheckpoint(dirpath=str(tmp_path))]}
        module, fitter, _ = tiny_run(run, 1, tmp_path, max_steps=max_steps, **saves)
        fitter.fit(module, datamodule=data_of(run, 1), ckpt_path=ckpt_path)
        return module.model

    fit(steps_of_epoch)
    resumed = fit(run.max_steps, str(tmp_path / "last.ckpt"))
    for parameter_name, parameter in resumed.named_parameters():
        assert torch.equal(whole(parameter), expected[parameter_name]), parameter_name
