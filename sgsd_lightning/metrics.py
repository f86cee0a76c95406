"""Accuracy over several samples of a problem, as torchmetrics that add up over processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


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
        if k < 1:
            raise ValueError(f"k of pass@k must be at least 1; got {k}")
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
