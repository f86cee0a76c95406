"""Rollouts of a whole optimizer step: sampled in one call, and the same as micro-batch by micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from sgsd_lightning.engines import GenerationRequest, TransformersEngine
from sgsd_lightning.rollouts.ahead import RolloutsAhead
from sgsd_lightning.types import Completion, Problem, ProblemBatch, Rollout, SamplingSettings
from tests.support.runs import Run, data_of, tiny_run
from tests.support.tiny import PROBLEMS, loaded_module, tiny_rollout

GROUP_SIZE, MICRO_BATCHES, BATCH_SIZE = 2, 3, 2
NUM_EVALUATED = 2 * 2


class CountingEngine(TransformersEngine):
    """Keeps how many completions each call was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def generate(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Completion]:
        self.calls.append(len(requests))
        return super().generate(model, requests, sampling)


@dataclass
class Found:
    """What a run asked the engine for, and what it came to."""

    calls: list[int]
    rollouts: list[Rollout]
    losses: list[float]


def trained(folder: Path, *, is_plain_loader: bool = False, max_steps: int, **trainer: Any) -> Found:
    """Train on epochs of 4 micro-batches, of which the first 3 make a step and the last another."""
    engine = CountingEngine()
    run = Run(
        module=lambda: {"engine": engine, "group_size": GROUP_SIZE},
        trainer=lambda: {"accumulate_grad_batches": MICRO_BATCHES, **trainer},
        global_batch=BATCH_SIZE,
        num_problems=8,
        drop_last=False,
        max_steps=max_steps,
    )
    module, fitter, recorder = tiny_run(run, 1, folder)
    data = data_of(run, 1)
    if is_plain_loader:
        data.setup("fit")
        batches: Any = [list(batch) for batch in data.train_dataloader()]
        data.train_dataloader = lambda: DataLoader(batches, batch_size=None)  # type: ignore[method-assign]
    fitter.fit(module, datamodule=data)
    return Found(calls=engine.calls, rollouts=recorder.rollouts, losses=recorder.losses)


def test_a_step_decodes_once_whatever_is_accumulated_and_samples_the_same(tmp_path: Path) -> None:
    together = trained(tmp_path, max_steps=3)
    per_micro_batch = BATCH_SIZE * GROUP_SIZE
    assert together.calls == [3 * per_micro_batch, per_micro_batch, 3 * per_micro_batch]
    apart = trained(tmp_path, is_plain_loader=True, max_steps=2)
    assert apart.calls == [per_micro_batch] * 4
    for one, other in zip(together.rollouts, apart.rollouts, strict=False):
        assert one.problem == other.problem
        assert one.completion_ids == other.completion_ids
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=1e-5, atol=1e-6)
    assert len(apart.rollouts) == 4 * per_micro_batch
    # a plain list says nothing of the short second step's weight
    assert together.losses[0] == pytest.approx(apart.losses[0], rel=1e-4, abs=1e-9)


def test_validation_in_the_middle_of_a_step_leaves_its_rollouts_alone(tmp_path: Path) -> None:
    plain = trained(tmp_path, max_steps=2)
    validated = trained(tmp_path, max_steps=2, val_check_interval=1, limit_val_batches=1)
    per_micro_batch = BATCH_SIZE * GROUP_SIZE
    assert validated.calls[:4] == [3 * per_micro_batch, NUM_EVALUATED, NUM_EVALUATED, NUM_EVALUATED]
    assert [r.completion_ids for r in validated.rollouts] == [r.completion_ids for r in plain.rollouts]
    assert validated.losses == plain.losses


def test_micro_batches_that_the_trainer_leaves_out_are_not_sampled(tmp_path: Path) -> None:
    found = trained(tmp_path, max_steps=2, limit_train_batches=2)
    assert found.calls == [2 * BATCH_SIZE * GROUP_SIZE] * 2


def test_a_step_that_resumes_in_its_middle_samples_the_rest_of_it_again() -> None:
    problems = [PROBLEMS[:2], [], PROBLEMS[2:5]]
    batches = [ProblemBatch(own, following=problems[place + 1 :]) for place, own in enumerate(problems)]
    straight, resumed = (loaded_module(group_size=GROUP_SIZE).learner for _ in range(2))
    expected = [straight.sample_ahead(batch, step=4) for batch in batches]
    found = [resumed.sample_ahead(batch, step=4) for batch in batches[1:]]
    assert [len(rollouts) for rollouts in expected] == [2 * GROUP_SIZE, 0, 3 * GROUP_SIZE]
    assert [[r.completion_ids for r in rollouts] for rollouts in found] == [
        [r.completion_ids for r in rollouts] for rollouts in expected[1:]
    ]
    assert not resumed.ahead.has_left(4)


def test_rollouts_of_another_step_or_an_earlier_training_are_not_handed_out() -> None:
    ahead = RolloutsAhead()
    batches = [PROBLEMS[:1], PROBLEMS[1:2]]
    ahead.keep(batches, [tiny_rollout(problem, (1,), (2,)) for problem in PROBLEMS[:2]], 1, step=3)
    assert ahead.has_left(3)
    assert not ahead.has_left(4)
    ahead.take(batches[0])
    ahead.clear()
    assert not ahead.has_left(3)


def test_a_loader_that_announces_other_problems_than_it_gives_is_refused() -> None:
    ahead = RolloutsAhead()
    ahead.keep([PROBLEMS[:1]], [tiny_rollout(PROBLEMS[0], (1,), (2,))], 1, step=0)
    other: list[Problem] = PROBLEMS[1:2]
    with pytest.raises(RuntimeError, match=r"announced problems \['p0'\] for this micro-batch .* gave \['p1'\]"):
        ahead.take(other)


def test_a_rollouter_that_gives_too_few_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"gave 1 rollouts where 4 were wanted, 2 of each problem"):
        RolloutsAhead().keep([PROBLEMS[:2]], [tiny_rollout(PROBLEMS[0], (1,), (2,))], 2, step=0)
