"""Group-relative policy gradients: GRPO, Dr. GRPO and DAPO as settings of one objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sgsd_lightning.metrics.measurements import mean_where
from sgsd_lightning.objectives.advantages import Advantages, GroupAdvantages, group_sums, judged
from sgsd_lightning.objectives.base import Objective, ObjectiveResult
from sgsd_lightning.types import ScoreRequest, TokenScores, Verdict
from sgsd_lightning.types.arguments import require, require_at_least, require_choice

LossLevel = Literal["sequence", "token", "constant"]


class PolicyGradient(Objective):
    """The clipped policy gradient over groups of rollouts of one problem (GRPO, arXiv 2402.03300).

    Equation, with A_it the advantage of token t of rollout i and w_t its probability now over that when sampled::

        L = - mean over rollouts of  sum_t min(w_t A_it, clip(w_t, 1 - clip_low, 1 + clip_high) A_it) / n_i
            + kl_weight * mean over rollouts of  mean_t (exp(d_t) - d_t - 1),   d = log reference - log student

    All sampled tokens count, the end-of-sequence token included. GRPO: ``sequence`` and normalised; Dr. GRPO (arXiv
    2503.20783): ``constant`` and not normalised; DAPO (arXiv 2503.14476): ``token`` and ``clip_high`` 0.28.

    A group is a problem's ``rollouts.group_size`` rollouts of one micro-batch without the dropped ones. Rollouts that
    could not be judged add 0 and do not affect the others. With one update per batch of rollouts w is 1 up
    to rounding, and clipping does nothing.

    Args:
        advantages: computes A; None takes `GroupAdvantages`.
        clip_low: the ratio w is clipped below 1 - clip_low; in (0, 1].
        clip_high: the ratio w is clipped above 1 + clip_high; above 0.
        loss_level: the divisor n_i: ``sequence`` the rollout's own tokens, ``token`` the mean number of tokens in its
            group, so that every token of a group weighs the same, ``constant`` the number ``max_completion_tokens``.
        max_completion_tokens: the divisor under ``constant``.
        kl_weight: weight of the divergence from the first teacher, which must be a `PlainPrompt` under frozen weights.
    """

    def __init__(
        self,
        advantages: Advantages | None = None,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        loss_level: LossLevel = "sequence",
        max_completion_tokens: int = 1024,
        kl_weight: float = 0.0,
    ) -> None:
        require(0 < clip_low <= 1, "objective.clip_low", "be in (0, 1]", clip_low)
        require(clip_high > 0, "objective.clip_high", "be above 0", clip_high)
        require_choice(LossLevel, "objective.loss_level", loss_level)
        require_at_least(1, "objective.max_completion_tokens", max_completion_tokens)
        require(0 <= kl_weight < math.inf, "objective.kl_weight", "be 0 or more, and finite", kl_weight)
        self.advantages = advantages or GroupAdvantages()
        self.clip_low = clip_low
        self.clip_high = clip_high
        self.loss_level: LossLevel = loss_level
        self.max_completion_tokens = max_completion_tokens
        self.kl_weight = kl_weight

    @property
    def needs_teachers(self) -> bool:
        return self.kl_weight > 0

    @property
    def compares_siblings(self) -> bool:
        return self.advantages.compares_siblings

    @property
    def score_request(self) -> ScoreRequest:
        return ScoreRequest(entropy=True)

    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> ObjectiveResult:
        student, mask = scores.student_logprob, scores.completion_mask
        advantage = self.advantages(scores, verdicts)  # [B, T] or [B, 1]
        is_judged = judged(verdicts, student.device)
        ratio = torch.where(mask, student - scores.sampled_logprob, 0.0).exp()
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        per_rollout = -torch.where(mask, gain, 0.0).sum(-1) / self._num_tokens(mask, scores.group, is_judged)
        kl = torch.where(is_judged, self._kl(scores), 0.0) if self.kl_weight else torch.zeros_like(per_rollout)
        loss = (per_rollout + self.kl_weight * kl).sum() / max(1, len(verdicts))
        is_one_per_rollout = advantage.shape[1] == 1
        per_token = torch.ones_like(advantage, dtype=torch.bool) if is_one_per_rollout else mask
        has_signal = ((advantage != 0) & per_token).any(-1)
        return ObjectiveResult(
            loss=loss,
            metrics={
                "objective/advantage_abs": mean_where(advantage.abs(), per_token),
                "objective/active_rollout_frac": mean_where(has_signal, torch.ones_like(has_signal)),
                "objective/clipped_token_frac": mean_where(ratio != clipped, mask),
                "objective/kl": mean_where(kl, torch.ones_like(has_signal)),
            },
        )

    def _num_tokens(self, mask: Tensor, group: Tensor, is_judged: Tensor) -> Tensor:
        """n_i [B], at least 1."""
        own = mask.sum(-1).float()
        if self.loss_level == "constant":
            own = torch.full_like(own, self.max_completion_tokens)
        elif self.loss_level == "token":
            counted = is_judged.float()
            own = group_sums(own * counted, group) / group_sums(counted, group).clamp(min=1)
        return own.clamp(min=1)

    def _kl(self, scores: TokenScores) -> Tensor:
        """[B]: the mean over tokens of the estimator exp(d) - d - 1, which is never below 0."""
        if scores.teacher_logprob.shape[1] == 0:
            raise ValueError(
                "objective.kl_weight needs a teacher to stay close to: set contexts to PlainPrompt and teacher_weights "
                "to FrozenTeacher"
            )
        mask = scores.completion_mask
        difference = torch.where(mask, scores.teacher_logprob[:, 0] - scores.student_logprob, 0.0)
        return (difference.exp() - difference - 1).sum(-1) / mask.sum(-1).clamp(min=1)
