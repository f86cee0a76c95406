"""avg@k, pass@k and majority@k against enumeration."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from sgsd_lightning.metrics.accuracy import AverageAtK, MajorityAtK, PassAtK


def enumerated_pass_at_k(correct: torch.Tensor, k: int) -> float:
    """The share of all k-subsets of each problem's samples that hold a correct one."""
    shares = []
    for row in correct.tolist():
        subsets = list(combinations(row, k))
        shares.append(sum(any(subset) for subset in subsets) / len(subsets))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("num_samples", [1, 3, 8])
@pytest.mark.parametrize("k", [1, 2, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(num_samples: int, k: int) -> None:
    if k > num_samples:
        with pytest.raises(ValueError, match=f"pass@{k} needs at least {k} samples a problem; got {num_samples}"):
            PassAtK(k).update(torch.ones(2, num_samples, dtype=torch.bool))
        return
    correct = torch.rand(13, num_samples) < 0.4
    metric = PassAtK(k)
    metric.update(correct[:5])
    metric.update(correct[5:])
    assert metric.compute().item() == pytest.approx(enumerated_pass_at_k(correct, k), abs=1e-12)


def test_average_at_k_counts_problems_not_batches() -> None:
    metric = AverageAtK()
    metric.update(torch.tensor([[True, False]]))
    metric.update(torch.tensor([[True, True], [False, False], [False, False]]))
    assert metric.compute().item() == pytest.approx((0.5 + 1 + 0 + 0) / 4)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 1; got 0"):
        PassAtK(0)


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["4", "4", "5"], [True, True, False], 1.0),
        (["4", "5", "5"], [True, False, False], 0.0),
        (["4", " 4 ", "5"], [True, True, False], 1.0),
        (["4", "5", None], [True, False, False], 0.5),
        (["1", "2", "3", "3", "2"], [False, True, False, False, True], 0.5),
        ([None, None], [False, False], 0.0),
        (["0.5", r"\frac12", "1/2", "7", "7"], [True, True, True, False, False], 1.0),
        (["x+1", "7", "7.0", "1+x", r"\frac{14}{2}"], [True, False, False, True, False], 0.0),
        (["2, 3", "3, 2", "x = 5", "5"], [True, True, False, False], 0.5),
        (["7"], [True], 1.0),
    ],
)
def test_the_majority_is_right_or_not(answers: list[str | None], correct: list[bool], expected: float) -> None:
    metric = MajorityAtK()
    metric.update([answers], torch.tensor([correct]))
    assert metric.compute().item() == pytest.approx(expected)


def test_majority_at_k_is_the_mean_over_problems_of_a_draw_among_the_leaders() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(4, (40, 6), generator=generator)  # answer 0 is the right one, 3 is none
    answers = [[None if value == 3 else str(value) for value in row] for row in drawn.tolist()]
    metric = MajorityAtK()
    for start in range(0, 40, 7):
        metric.update(answers[start : start + 7], drawn[start : start + 7] == 0)
    shares = []
    for row in drawn.tolist():
        counts = [row.count(value) for value in range(3)]
        leaders = [value for value in range(3) if counts[value] == max(counts) > 0]
        shares.append((0 in leaders) / len(leaders) if leaders else 0.0)
    assert metric.compute().item() == pytest.approx(sum(shares) / 40)
