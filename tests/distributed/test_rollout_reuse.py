"""Several optimizer steps on the same rollouts: which ones, what they weigh, and that a resume keeps them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.callbacks import RunCheckpoint
from sgsd_lightning.contexts import NoContext
from sgsd_lightning.data import ProblemLoader
from sgsd_lightning.objectives import PolicyGradient
from sgsd_lightning.rollouts.reuse import RolloutReuse
from sgsd_lightning.training import RunCallback, StepReport
from sgsd_lightning.types import Problem
from tests.support.runs import Run, data_of, on_processes, outcome, tiny_run, whole
from tests.support.tiny import PROBLEMS, tiny_module

UPDATES, MICRO_BATCHES = 3, 2


class Witness(RunCallback):
    """What every micro-batch was made of, and what every step measured."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, list[tuple[str, tuple[int, ...], int]]]] = []
        self.num_sampled: list[int] = []
        self.steps: dict[int, Mapping[str, float]] = {}

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        for step in report.learner_steps:
            rollouts = [judged.rollout for judged in step.record.judged]
            rows = [(r.problem.problem_id, r.completion_ids, r.policy_version) for r in rollouts]
            self.seen.append((step.record.is_reused, rows))
            self.num_sampled.append(len(step.sampled_lengths))
        self.steps[report.step] = report.metrics


def policy_gradient_run(max_steps: int, learning_rate: float = 0.02) -> Run:
    return Run(
        module=lambda: {
            "objective": PolicyGradient(clip_low=0.01, clip_high=0.01),
            "contexts": NoContext(),
            "group_size": 4,
            "updates_per_batch": UPDATES,
            "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=learning_rate),
        },
        trainer=lambda: {"accumulate_grad_batches": MICRO_BATCHES},
        global_batch=2,
        max_steps=max_steps,
        updates_per_batch=UPDATES,
    )


def test_a_step_s_rollouts_serve_as_many_updates_as_asked_for(tmp_path: Path) -> None:
    witness = Witness()
    run = policy_gradient_run(max_steps=5)
    module, trainer, _ = tiny_run(run, 1, tmp_path)
    trainer.callbacks.append(witness)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=data_of(run, 1))
    micro_batches = [rows for _, rows in witness.seen]
    first, second = micro_batches[:MICRO_BATCHES], micro_batches[MICRO_BATCHES * UPDATES :][:MICRO_BATCHES]
    assert micro_batches == first * UPDATES + second * 2
    assert first[0] != first[1]
    assert {row[2] for rows in first for row in rows} == {0}
    assert {row[2] for rows in second for row in rows} == {UPDATES}
    reused = [is_reused for is_reused, _ in witness.seen]
    assert reused == [False] * 2 + [True] * 4 + [False] * 2 + [True] * 2
    assert [num > 0 for num in witness.num_sampled] == [not is_reused for is_reused in reused]


def test_later_updates_are_weighed_by_how_far_the_policy_has_moved(tmp_path: Path) -> None:
    witness = Witness()
    run = policy_gradient_run(max_steps=3)
    module, trainer, _ = tiny_run(run, 1, tmp_path)
    trainer.callbacks.append(witness)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=data_of(run, 1))
    assert witness.steps[1]["objective/clipped_token_frac"] == 0
    assert witness.steps[2]["objective/clipped_token_frac"] > 0.1


@pytest.mark.parametrize("updates", [1, 2, 3])
@pytest.mark.parametrize(("num_problems", "window"), [(12, 1), (12, 2), (13, 3), (5, 2), (1, 2)])
def test_the_loader_hands_out_each_window_as_often(updates: int, num_problems: int, window: int) -> None:
    problems = [PROBLEMS[i % len(PROBLEMS)] for i in range(num_problems)]
    once = list(ProblemLoader(problems, 2, seed=0))
    repeated = ProblemLoader(problems, 2, seed=0, repeats=updates, window=window)
    expected: list[Sequence[Problem]] = []
    for start in range(0, len(once), window):
        block = once[start : start + window]
        expected += block * updates if updates > 1 and len(block) == window else block if updates == 1 else []
    assert list(repeated) == expected
    assert len(repeated) == len(expected)


def test_module_and_data_must_agree(tmp_path: Path) -> None:
    run = policy_gradient_run(max_steps=1)
    run.updates_per_batch = 1
    module, trainer, _ = tiny_run(run, 1, tmp_path)
    with pytest.raises(ValueError, match=r"model.updates_per_batch is 3 and data.updates_per_batch is 1"):
        trainer.fit(module, datamodule=data_of(run, 1))


def test_no_update_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.updates_per_batch must be at least 1; got 0"):
        tiny_module(updates_per_batch=0)


def _stop_and_go(world_size: int, folder: Path) -> None:
    """In one go, and stopped between two updates on the same rollouts."""
    run = policy_gradient_run(max_steps=5)
    first = outcome(run, world_size, folder)["weights"]
    last = RunCheckpoint(dirpath=str(folder))
    stopped, trainer, _ = tiny_run(run, world_size, folder, max_steps=2, enable_checkpointing=True, callbacks=[last])
    trainer.fit(stopped, datamodule=data_of(run, world_size))
    resumed, trainer, _ = tiny_run(run, world_size, folder)
    trainer.fit(resumed, datamodule=data_of(run, world_size), ckpt_path=str(folder / "last.ckpt"))
    for name, parameter in resumed.model.named_parameters():
        assert torch.equal(whole(parameter), first[name]), name


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_stopped_between_two_updates_goes_on_with_the_same_rollouts(world_size: int, tmp_path: Path) -> None:
    if world_size == 1:
        _stop_and_go(1, tmp_path)
    else:
        on_processes(world_size, _stop_and_go, tmp_path)


def test_other_processes_sample_their_own_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    reuse = RolloutReuse(2)
    with caplog.at_level(logging.WARNING):
        reuse.load_state_dicts([{0: []}, {0: []}], rank=0)
    assert "split over 2 processes; 1 run now" in caplog.text
    assert reuse.find(PROBLEMS[:1], batch_idx=1, micro_batches=1, restore={}) is None
