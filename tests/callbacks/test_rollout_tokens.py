"""Rollouts written token by token, for the token view."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from sgsd_kernels import gated_loss

from sgsd_lightning.callbacks import RolloutTable
from sgsd_lightning.data import ProblemDataModule, ProblemSource
from sgsd_lightning.objectives import GatedPolarity, PolicyGradient, WeightedSum
from sgsd_lightning.training import RunCallback, StepReport
from sgsd_lightning.types import Problem, StepRecord
from tests.support.tiny import PROBLEMS, tiny_module


class Four(ProblemSource):
    def load(self) -> list[Problem]:
        return PROBLEMS[:4]


class Witness(RunCallback):
    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        self.records += [step.record for step in report.learner_steps]


@pytest.mark.parametrize("num_token_rows", [0, 2])
def test_some_rollouts_of_a_step_are_written_token_by_token(tmp_path: Path, num_token_rows: int) -> None:
    witness = Witness()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        default_root_dir=tmp_path,
        callbacks=[RolloutTable(every_n_steps=1, num_token_rows=num_token_rows), witness],
    )
    trainer.fit(tiny_module(), datamodule=ProblemDataModule(train=Four(), batch_size=4))
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [("tokens" in row) for row in rows] == [number < num_token_rows for number in range(len(rows))]
    (record,) = witness.records
    for index, row in enumerate(rows[:num_token_rows]):
        length, mask = row["completion_tokens"], torch.tensor(row["loss_mask"], dtype=torch.bool)
        assert len(row["tokens"]) == len(row["student_logprob"]) == length
        assert torch.equal(mask, record.loss_mask[index, :length])
        for k, teacher in enumerate(row["teachers"]):
            assert teacher["text"] == record.contexts[index][k].text
            assert teacher["stance"] == record.stances[index][k].stance
            log_ratio = torch.tensor(teacher["log_ratio"])
            torch.testing.assert_close(log_ratio[mask], record.log_ratio[index, k, :length][mask], atol=1e-4, rtol=0)
            assert log_ratio[~mask].eq(0).all()
            assert len(teacher["gate"]) == length


@pytest.mark.parametrize("gate_temperature", [0.3, 1.0, 4.0])
def test_the_gate_of_a_token_is_the_slope_of_its_loss_over_the_largest(gate_temperature: float) -> None:
    log_ratio = torch.linspace(-8, 8, 20001, dtype=torch.float64).requires_grad_()
    gated_loss(log_ratio, gate_temperature).sum().backward()
    assert log_ratio.grad is not None
    slope = log_ratio.grad.abs()
    found = GatedPolarity(gate_temperature=gate_temperature).token_gate(log_ratio.detach())
    torch.testing.assert_close(found, slope / slope.max(), atol=1e-5, rtol=0)


def test_objectives_without_a_gate_show_none() -> None:
    log_ratio = torch.zeros(2, 3)
    assert PolicyGradient().token_gate(log_ratio) is None
    assert GatedPolarity(support_top_k=4).token_gate(log_ratio) is None
    assert WeightedSum([PolicyGradient(), GatedPolarity()], [1.0, 1.0]).token_gate(log_ratio) is not None


def test_a_number_of_rows_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rollout_table.num_token_rows must be 0 \(off\) or more; got -1"):
        RolloutTable(num_token_rows=-1)
