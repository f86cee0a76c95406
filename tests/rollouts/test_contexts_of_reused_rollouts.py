"""Contexts that read rollouts are built once per judged batch, and stay with it until its last update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sgsd_lightning.callbacks import RunCheckpoint
from tests.support.rollout_contexts import EchoContexts
from tests.support.runs import Recorder, Run, data_of, tiny_run

UPDATES, MICRO_BATCHES = 3, 2


class Killed(Callback):
    """Dies before a step; its checkpoint is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def fit(
    folder: Path, contexts: EchoContexts, max_steps: int = 5, kill: int | None = None, resume: Path | None = None
) -> tuple[Recorder, list[torch.Tensor]]:
    run = Run(
        module=lambda: {"contexts": contexts, "group_size": 2, "updates_per_batch": UPDATES},
        trainer=lambda: {"accumulate_grad_batches": MICRO_BATCHES, "enable_checkpointing": True},
        global_batch=2,
        max_steps=max_steps,
        updates_per_batch=UPDATES,
    )
    callbacks: list[Callback] = [RunCheckpoint(dirpath=str(folder), every_n_train_steps=1)]
    callbacks += [] if kill is None else [Killed(kill)]
    module, trainer, recorder = tiny_run(run, 1, folder, callbacks=callbacks)
    trainer.fit(module, datamodule=data_of(run, 1), ckpt_path=resume)
    return recorder, [parameter.detach() for parameter in module.model.parameters()]


def test_they_are_built_once_whatever_the_number_of_updates(tmp_path: Path) -> None:
    contexts = EchoContexts()
    recorder, _ = fit(tmp_path, contexts)
    # steps 1 to 3 are on the first two micro-batches, 4 and 5 on the next two
    assert len(contexts.calls) == 2 * MICRO_BATCHES
    assert [len(call) for call in contexts.calls] == [4] * 4
    assert [call[0].rollout.policy_version for call in contexts.calls] == [0, 0, 3, 3]
    assert len(recorder.losses) == 5
    assert len(set(recorder.losses)) == 5


@pytest.mark.parametrize("killed_before", [1, 2])
def test_a_run_that_was_killed_between_two_updates_takes_them_from_its_checkpoint(
    killed_before: int, tmp_path: Path
) -> None:
    straight, weights = fit(tmp_path / "straight", EchoContexts())
    folder = tmp_path / "killed"
    with pytest.raises(RuntimeError, match="killed"):
        fit(folder, EchoContexts(), kill=killed_before)
    resumed, other = EchoContexts(), EchoContexts(mark="other")
    found, again = fit(tmp_path / "resumed", resumed, resume=folder / "last.ckpt")
    assert found.losses == straight.losses[killed_before:]
    assert all(torch.equal(one, two) for one, two in zip(again, weights, strict=True))
    assert [call[0].rollout.policy_version for call in resumed.calls] == [3, 3]
    # what a builder would say now does not count before the next rollouts
    changed, _ = fit(tmp_path / "changed", other, resume=folder / "last.ckpt")
    num_left = UPDATES - killed_before
    assert changed.losses[:num_left] == straight.losses[killed_before:UPDATES]
    assert changed.losses[num_left:] != straight.losses[UPDATES:]
    saved = torch.load(folder / "last.ckpt", weights_only=True)["sgsd_lightning"]["rollouts"]
    (of_process,) = saved
    texts = [[context["text"] for context in row] for row in of_process[0]["policy"]["contexts"]]
    rows = of_process[0]["policy"]["rollouts"]
    assert [text[0] for text in texts] == [str(tuple(row["turns"][0]["completion"]["ids"])) for row in rows]
