"""Muon (momentum, orthogonalised), in float32: it teaches the base model in less than half of AdamW's time.

``torch.optim.Muon`` orthogonalises in bfloat16, which CPUs without bfloat16 units run some eighty times slower.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Steps along the nearest semi-orthogonal matrix to each matrix's Nesterov momentum.

    Args:
        params: Matrices only.
        lr: Step size; an update's singular values are near ``lr``, times sqrt(rows / columns) for tall matrices.
        momentum: Decay of the running sum of gradients.
        weight_decay: Decoupled, as in AdamW.
    """

    def __init__(
        self, params: Iterable[Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                average = state.setdefault("average", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1 - group["momentum"])
                direction = orthogonalised(matrix.grad.lerp(average, group["momentum"]))
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-group["lr"] * scale)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Roughly U V^T of the matrix's singular value decomposition: singular values land in about 0.7 to 1.2."""
    a, b, c = _NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
