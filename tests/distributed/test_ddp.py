"""DDP on 2 and 4 processes: losses, gradients and weights are those of one process on the same global batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sgsd_lightning.policy import EmaTeacher, FrozenTeacher, LoraSettings, PeriodicTeacher
from sgsd_lightning.rollouts import SamplingPolicy, SingleTurn
from sgsd_lightning.rollouts.base import Wanted
from sgsd_lightning.types import Rollout, SamplingSettings
from tests.support.runs import ContextsForSome, Run, on_processes, outcome, outcomes, problems_of_rank
from tests.support.tiny import EvenSum, tiny_policy

WITHOUT_TOKENS = problems_of_rank(1, 2, 2, step=0)
WITHOUT_TEACHERS = problems_of_rank(0, 2, 2, step=1)
LONG_CONTEXTS = problems_of_rank(1, 2, 2, step=2)
ON_FOUR = ["plain", "uneven last batch", "ranks without anything"]


class EmptyForSome(SingleTurn):
    """Completions without a token for some problems."""

    def __init__(self) -> None:
        super().__init__(sampling=SamplingSettings(max_new_tokens=12))

    def sample(
        self, policy: SamplingPolicy, wanted: Sequence[Wanted], *, stream: str, step: int | None = None
    ) -> list[Rollout]:
        rollouts = super().sample(policy, wanted, stream=stream, step=step)
        return [_emptied(r) if r.problem.problem_id in WITHOUT_TOKENS else r for r in rollouts]


def _emptied(rollout: Rollout) -> Rollout:
    (turn,), none = rollout.turns, torch.zeros(0)
    completion = replace(turn.completion, ids=(), logprobs=none, sampling_logprobs=none, kept_mass=none)
    return replace(rollout, turns=(replace(turn, completion=completion, text=""),))


def runs() -> dict[str, Run]:
    """Built in every process."""
    ddp = {"strategy": "ddp"}
    return {
        "plain": Run(trainer=lambda: {**ddp, "gradient_clip_val": 0.1}, validates=True),
        "uneven last batch": Run(trainer=lambda: ddp, num_problems=9, drop_last=False),
        "ranks without anything": Run(
            module=lambda: {
                "rollouts": EmptyForSome(),
                "contexts": ContextsForSome(without=WITHOUT_TEACHERS, long=LONG_CONTEXTS),
                "verifier": EvenSum(truncated_rollouts="dropped"),
                "teacher_tokens_per_forward": 200,
            },
            trainer=lambda: ddp,
        ),
        "groups, accumulation, ema": Run(
            module=lambda: {"group_size": 2, "teacher_weights": EmaTeacher(0.5)},
            trainer=lambda: {**ddp, "accumulate_grad_batches": 2},
            max_steps=2,
            num_problems=12,
            global_batch=4,
            drop_last=False,  # the second step is short
        ),
        "lora, periodic": Run(
            module=lambda: {
                "policy": tiny_policy(lora=LoraSettings(rank=2, alpha=4)),
                "teacher_weights": PeriodicTeacher(2),
            },
            trainer=lambda: ddp,
        ),
        "lora, frozen": Run(
            module=lambda: {
                "policy": tiny_policy(lora=LoraSettings(rank=2, alpha=4)),
                "teacher_weights": FrozenTeacher(),
            },
            trainer=lambda: ddp,
        ),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], list[dict[str, Any]]]:
    """What a run came to on every one of so many processes; 4 processes only where a batch can be split so."""
    folder = tmp_path_factory.mktemp("ddp")
    on_processes(2, outcomes, runs, folder, list(runs()))
    on_processes(4, outcomes, runs, folder, ON_FOUR)

    def read(name: str, world_size: int) -> list[dict[str, Any]]:
        if world_size == 1:
            return [outcome(runs()[name], 1, folder, strategy="auto")]
        paths = [folder / f"{name}-{world_size}-{rank}.pt" for rank in range(world_size)]
        return [torch.load(path, weights_only=False) for path in paths]

    return read


@pytest.mark.parametrize("name", list(runs()))
def test_any_number_of_processes_gives_what_one_gives(
    name: str, results: Callable[[str, int], list[dict[str, Any]]], tmp_path: Path
) -> None:
    (alone,) = results(name, 1)
    assert any(gradient.any() for gradient in alone["gradients"][0].values())
    for world_size in (2, 4) if name in ON_FOUR else (2,):
        ranks = results(name, world_size)
        together = {key: value for rank in ranks for key, value in rank["completions"].items()}
        assert together == alone["completions"]
        for rank in ranks:
            assert_equal(rank, alone)


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Losses and logged metrics to rounding, gradients and weights to 1e-6."""
    assert_equal_metrics(found, expected)
    assert len(found["gradients"]) == len(expected["gradients"])
    for step, gradients in enumerate(expected["gradients"]):
        assert_close(found["gradients"][step], gradients, f"gradient of step {step}")
    for part in ("weights", "teacher"):
        assert_close(found[part], expected[part], part)


def assert_equal_metrics(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {"optimizer/lr", "optimizer/grad_norm"} <= expected["metrics"].keys()
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5, abs=1e-6)
    for name, value in expected["metrics"].items():
        if name.split("/")[0] in ("objective", "rollout", "contexts", "optimizer"):
            assert found["metrics"][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert found.get("validation", {}) == pytest.approx(expected.get("validation", {}), rel=1e-5)


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], what: str) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = float((found[name] - value).abs().max())
        assert difference <= 1e-6 * max(1.0, float(value.abs().max())), f"{what}, {name}: {difference}"
