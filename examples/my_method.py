"""A method of one's own: a wrong answer learns from a right answer to the same problem.

Two classes make a method, a context that reads the rollouts and an objective; a configuration names both:

    sgsd fit --config sgsd_toy --config examples/my_method.yaml
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sgsd_lightning import ContextBuilder, Objective
from sgsd_lightning.objectives import ObjectiveResult
from sgsd_lightning.types import JudgedRollout, ScoreRequest, TeacherContext, TokenScores, Verdict


class RightSibling(ContextBuilder):
    """Shows the teacher of a wrong rollout the first right rollout of its group.

    Args:
        template: the text; ``{answer}`` is the right rollout.
    """

    def __init__(self, template: str = "Another attempt, which is right:\n{answer}") -> None:
        self.template = template

    def contexts_for(
        self, own: Sequence[JudgedRollout], everyone: Mapping[str, Sequence[JudgedRollout]]
    ) -> list[list[TeacherContext]]:
        right: dict[str, str] = {}
        for judged in own:
            if judged.verdict.outcome > 0:
                right.setdefault(judged.rollout.problem.problem_id, judged.rollout.completion_text)
        return [self._contexts(judged, right) for judged in own]

    def _contexts(self, judged: JudgedRollout, right: Mapping[str, str]) -> list[TeacherContext]:
        answer = right.get(judged.rollout.problem.problem_id)
        if answer is None or judged.verdict.outcome > 0:
            return []
        return [TeacherContext(text=self.template.replace("{answer}", answer), weight=1.0, source_ids=("sibling",))]


class FollowSibling(Objective):
    """L = - mean over rollouts of  sum_t m_t (log p_teacher(y_t) - log p_student(y_t)) log p_student(y_t) / n."""

    @property
    def score_request(self) -> ScoreRequest:
        return ScoreRequest(entropy=False)

    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> ObjectiveResult:
        mask = scores.loss_mask & (scores.context_weight.sum(-1) > 0)[:, None]
        advantage = scores.teacher_logprob.sum(1) - scores.student_logprob.detach()  # [B, T]; K is 0 or 1
        gain = torch.where(mask, advantage * scores.student_logprob, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
        return ObjectiveResult(loss=-gain.sum() / max(1, len(verdicts)))
