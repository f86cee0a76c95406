"""Distillation over whole distributions, as in OPSD, and over the sampled tokens alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from sgsd_kernels.divergence.rule import Divergence as DivergenceRule
from torch import Tensor

from sgsd_lightning.metrics.measurements import mean_where
from sgsd_lightning.objectives.base import Objective, ObjectiveResult
from sgsd_lightning.types import DivergenceRequest, ScoreRequest, TokenScores, Verdict
from sgsd_lightning.types.arguments import require


class Divergence(Objective):
    """The divergence of teacher and student over the vocabulary, token by token (OPSD, arXiv 2601.18734).

    Equation, with p the teacher, or the mixture of all by their context weights, and q the student::

        L = mean over rollouts of  sum_t m_t D(p_t, q_t) / n

    The verdict does not matter. A rollout without a teacher adds 0.

    Args:
        kind: ``forward_kl`` is KL(p || q), ``reverse_kl`` is KL(q || p), ``jsd`` lies between.
        beta: the teacher's share of the middle of ``jsd``, strictly between 0 and 1.
        temperature: of both distributions, above 0 and finite; the loss is not scaled by it.
        token_clip: the most that one entry of the vocabulary may add to a token's loss; None is off.
        support_top_k: above 0, both distributions are restricted to the teacher's top-k tokens and renormalised (one
            teacher alone); -1 compares the whole vocabulary.
        support_tail: with ``support_top_k``, keep their probabilities as they are and count all other tokens as one
            more: a lower bound of the divergence over the whole vocabulary, and not cheaper than it.
    """

    def __init__(
        self,
        kind: Literal["forward_kl", "reverse_kl", "jsd"] = "jsd",
        beta: float = 0.5,
        temperature: float = 1.0,
        token_clip: float | None = None,
        support_top_k: int = -1,
        support_tail: bool = False,
    ) -> None:
        try:
            DivergenceRule(kind=kind, beta=beta, token_clip=token_clip)
        except ValueError as error:
            raise ValueError(f"objective.{error}") from None
        require(0 < temperature < math.inf, "objective.temperature", "be above 0 and finite", temperature)
        if support_top_k != -1 and support_top_k < 1:
            raise ValueError(f"objective.support_top_k must be -1 (off) or above 0; got {support_top_k}")
        if support_tail and support_top_k == -1:
            raise ValueError("objective.support_tail must come with objective.support_top_k above 0")
        self.request = DivergenceRequest(
            kind=kind,
            beta=beta,
            temperature=temperature,
            token_clip=token_clip,
            support_top_k=support_top_k,
            support_tail=support_tail,
        )

    @property
    def needs_teachers(self) -> bool:
        return True

    @property
    def score_request(self) -> ScoreRequest:
        return ScoreRequest(entropy=True, divergence=self.request)

    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> ObjectiveResult:
        if scores.divergence is None:
            raise RuntimeError("the scorer left out the divergence that the objective asked for")
        per_rollout = masked_mean(scores.divergence, scores.loss_mask)
        has_teacher = (scores.context_weight > 0).any(-1)
        return ObjectiveResult(
            loss=per_rollout.sum() / max(1, len(verdicts)),
            metrics={"objective/divergence": mean_where(per_rollout, has_teacher)},
        )


class SampledDivergence(Objective):
    """The reverse KL's policy gradient on the tokens that were sampled: needs log-probabilities alone.

    Equation, with p the mixture of the teachers by their context weights and q the student, whose part in the advantage
    has no gradient::

        A_t = clip(log p(y_t) - log q(y_t), -C, C)
        L   = - mean over rollouts of  sum_t m_t A_t log q(y_t) / n

    Args:
        advantage_clip: C > 0, in nats; None is off.
    """

    def __init__(self, advantage_clip: float | None = None) -> None:
        is_clip = advantage_clip is None or advantage_clip > 0
        require(is_clip, "objective.advantage_clip", "be above 0, or null", advantage_clip)
        self.advantage_clip = advantage_clip

    @property
    def needs_teachers(self) -> bool:
        return True

    @property
    def score_request(self) -> ScoreRequest:
        return ScoreRequest(entropy=True)

    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> ObjectiveResult:
        has_teacher = (scores.context_weight > 0).any(-1)
        advantage = self._advantage(scores, has_teacher)
        per_rollout = -masked_mean(advantage * scores.student_logprob, scores.loss_mask)
        mask = scores.loss_mask & has_teacher[:, None]
        return ObjectiveResult(
            loss=per_rollout.sum() / max(1, len(verdicts)),
            metrics={"objective/advantage": mean_where(advantage, mask)},
        )

    def _advantage(self, scores: TokenScores, has_teacher: Tensor) -> Tensor:
        """[B, T], 0 for rollouts without a teacher."""
        if scores.teacher_logprob.shape[1] == 0:
            return torch.zeros_like(scores.student_logprob.detach())
        log_weight = scores.context_weight.log()[:, :, None]
        mixture = (scores.teacher_logprob + log_weight).logsumexp(dim=1)
        advantage = torch.where(has_teacher[:, None], mixture - scores.student_logprob.detach(), 0.0)
        return advantage if self.advantage_clip is None else advantage.clamp(-self.advantage_clip, self.advantage_clip)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return [B]: the mean over each row's tokens in the mask; 0 if there are none."""
    return torch.where(mask, values, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
