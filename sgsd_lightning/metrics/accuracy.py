"""Accuracy over several samples per problem, as torchmetrics that are summed over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from sgsd_lightning.metrics.votes import Vote, group_by_value, leading
from sgsd_lightning.types.arguments import require_at_least


class AverageAtK(Metric):
    """avg@k: the share of correct samples, averaged over problems.

    Feed it ``correct`` [problems, k], bool: whether each of the k samples of a problem was accepted.
    """

    full_state_update = False
    total: Tensor
    num_problems: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_problems", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, correct: Tensor) -> None:
        """Add problems. ``correct``: [problems, k] bool."""
        self.total += correct.double().mean(dim=1).sum()
        self.num_problems += correct.shape[0]

    def compute(self) -> Tensor:
        """A float64 scalar in [0, 1]; NaN before the first problem."""
        return self.total / self.num_problems


class PassAtK(Metric):
    """pass@k: the chance that at least one of k samples of a problem is correct, averaged over problems.

    From n >= k samples with c correct, the unbiased estimate 1 - C(n - c, k) / C(n, k) of Chen et al. 2021
    (arXiv 2107.03374), evaluated as a product of n - k + 1 .. n terms that neither overflows nor cancels.

    Args:
        k: how many samples count.
    """

    full_state_update = False
    total: Tensor
    num_problems: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        require_at_least(1, "k of pass@k", k)
        self.k = k
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_problems", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, correct: Tensor) -> None:
        """Add problems. ``correct``: [problems, n] bool with n >= k."""
        num_samples = correct.shape[1]
        if num_samples < self.k:
            raise ValueError(f"pass@{self.k} needs at least {self.k} samples a problem; got {num_samples}")
        wrong = num_samples - correct.sum(dim=1, dtype=torch.float64)  # [problems]
        draws = torch.arange(self.k, dtype=torch.float64, device=correct.device)
        none_correct = ((wrong[:, None] - draws) / (num_samples - draws)).clamp(min=0).prod(dim=1)
        self.total += (1 - none_correct).sum()
        self.num_problems += correct.shape[0]

    def compute(self) -> Tensor:
        """A float64 scalar in [0, 1]; NaN before the first problem."""
        return self.total / self.num_problems


class MajorityAtK(Metric):
    """majority@k: whether the answer that most of a problem's k samples gave is correct, averaged over problems.

    Samples vote by the value of the answer found in them, however it is spelt; one without an answer does not vote.
    A tie counts its expectation under a uniform choice among the tied answers; a problem without a vote counts 0 (Wang
    et al. 2022, arXiv 2203.11171).

    Args:
        group: puts votes for equal values together, see :func:`sgsd_lightning.metrics.votes.group_by_value`.
    """

    full_state_update = False
    total: Tensor
    num_problems: Tensor

    def __init__(self, group: Callable[[Sequence[Vote]], list[list[Vote]]] = group_by_value) -> None:
        super().__init__()
        self.group = group
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_problems", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, answers: Sequence[Sequence[str | None]], correct: Tensor) -> None:
        """Add problems. ``answers``: [problems][k]; ``correct``: [problems, k] bool, of the same samples."""
        for row, accepted in zip(answers, correct.tolist(), strict=True):
            votes = [
                Vote(answer, is_right) for answer, is_right in zip(row, accepted, strict=True) if answer is not None
            ]
            leaders = leading(self.group(votes))
            right = sum(any(vote.is_correct for vote in leader) for leader in leaders)
            self.total += right / len(leaders) if leaders else 0.0
        self.num_problems += len(answers)

    def compute(self) -> Tensor:
        """A float64 scalar in [0, 1]; NaN before the first problem."""
        return self.total / self.num_problems
