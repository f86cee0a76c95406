"""Which divergence of teacher and student, and its value and slope one vocabulary entry at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

DivergenceKind = Literal["forward_kl", "reverse_kl", "jsd"]
"""With p the teacher and q the student: ``forward_kl`` is KL(p || q), ``reverse_kl`` is KL(q || p), and ``jsd`` is
beta KL(p || m) + (1 - beta) KL(q || m) of the mixture m = beta p + (1 - beta) q."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The sum over the vocabulary of an entry f(log q_v, log p_v), each entry cut off at ``token_clip``."""

    kind: DivergenceKind = "forward_kl"
    beta: float = 0.5
    """The teacher's share of the mixture, strictly between 0 and 1; of ``jsd`` alone."""
    token_clip: float | None = None
    """The most that one entry may add; what it cuts has no gradient. Above 0, None is off."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(DivergenceKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(DivergenceKind))}; got {self.kind!r}")
        if self.kind == "jsd" and not 0 < self.beta < 1:
            raise ValueError(
                f"beta must lie strictly between 0 and 1 for kind='jsd'; got {self.beta}. "
                "kind='forward_kl' is what OPSD calls beta=0, and kind='reverse_kl' what it calls beta=1"
            )
        if self.token_clip is not None and not self.token_clip > 0:
            raise ValueError(f"token_clip must be above 0, or None to switch it off; got {self.token_clip}")

    @property
    def clip(self) -> float:
        """``token_clip`` as a number."""
        return math.inf if self.token_clip is None else self.token_clip

    def entries(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """f and df/dlog q of every entry, from the log-probabilities ``student`` and ``teacher`` of one shape.

        A token that one side has at probability 0 adds what the limit says, which is 0 or infinity.
        """
        if self.kind == "forward_kl":
            probability = teacher.exp()
            value = weighted(probability, teacher - student)
            slope = probability.neg_()
        elif self.kind == "reverse_kl":
            probability = student.exp()
            value = weighted(probability, student - teacher)
            slope = probability.add_(value)
        else:
            value, slope = self._jsd(student, teacher)
        if self.token_clip is not None:
            slope.masked_fill_(value > self.token_clip, 0.0)
            value.clamp_(max=self.token_clip)
        return value, slope

    def _jsd(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """log m is taken relative to the larger of both, so that a small divergence keeps its digits.

        With d = log q - log p <= 0: log m - log p = log1p((1 - beta) expm1(d)), and likewise from log q.
        """
        higher = torch.maximum(student, teacher)
        lower_share = (student < teacher).to(student.dtype).mul_(1 - 2 * self.beta).add_(self.beta)
        gap = lower_share.mul_((student - teacher).abs_().neg_().expm1_()).log1p_()
        slope = weighted(student.exp(), student - higher - gap).mul_(1 - self.beta)
        value = weighted(teacher.exp(), teacher - higher - gap).mul_(self.beta)
        return value.add_(slope), slope


def weighted(probability: Tensor, log_ratio: Tensor) -> Tensor:
    """``probability * log_ratio``, 0 where the probability is 0; overwrites ``log_ratio``."""
    return log_ratio.mul_(probability).masked_fill_(probability == 0, 0.0)
