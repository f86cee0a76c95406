"""An optimizer step is the mean over its problems, however it is split, and at the end of an epoch too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import Run, outcome

NUM_PROBLEMS = 6


def run_split(batch_size: int, accumulate: int, num_steps: int, *, drop_last: bool, num: int = NUM_PROBLEMS) -> Run:
    """Plain gradient descent in steps of ``batch_size`` x ``accumulate`` problems, so that updates show sizes."""
    return Run(
        module=lambda: {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=1.0)},
        trainer=lambda: {"accumulate_grad_batches": accumulate},
        global_batch=batch_size,
        num_problems=num,
        drop_last=drop_last,
        max_steps=num_steps,
    )


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-6)
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, atol=2e-6, rtol=1e-5, msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An epoch of a step of four problems and one of the two that are left."""
    return outcome(run_split(4, 1, 2, drop_last=False), 1, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("batch_size", "accumulate"), [(2, 2), (1, 4)])
def test_the_last_short_step_of_an_epoch_counts_full(
    batch_size: int, accumulate: int, whole: dict[str, Any], tmp_path: Path
) -> None:
    assert_close(outcome(run_split(batch_size, accumulate, 2, drop_last=False), 1, tmp_path), whole)


def test_micro_batches_of_a_step_count_by_their_problems(tmp_path: Path) -> None:
    """Three problems as two and one."""
    expected = outcome(run_split(4, 1, 1, drop_last=False, num=3), 1, tmp_path)
    assert_close(outcome(run_split(2, 2, 1, drop_last=False, num=3), 1, tmp_path), expected)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_an_epoch_that_fills_no_step_is_one_step_that_counts_full(accumulate: int, tmp_path: Path) -> None:
    expected = outcome(run_split(2, 1, 1, drop_last=True, num=2), 1, tmp_path)
    update = expected["gradients"][0]
    assert max(gradient.abs().max() for gradient in update.values()) > 1e-4
    assert_close(outcome(run_split(2, accumulate, 1, drop_last=True, num=2), 1, tmp_path), expected)
