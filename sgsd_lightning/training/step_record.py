"""What one micro-batch of training went through, in plain numbers for callbacks and for the contexts' evidence."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sgsd_lightning.contexts.pool import TeacherPool
from sgsd_lightning.objectives import ObjectiveResult
from sgsd_lightning.types import Observation, StepRecord, TokenScores


def record_step(pool: TeacherPool, scores: TokenScores, result: ObjectiveResult, is_reused: bool = False) -> StepRecord:
    """Bring the objective's [B, K] measurements back to each rollout's own contexts."""

    def ragged(values: Tensor | None) -> list[list[Any]]:
        rows = [] if values is None else values.tolist()
        return [row[: len(contexts)] for row, contexts in zip(rows, pool.contexts, strict=False)]

    student_logprob = scores.student_logprob.detach()
    return StepRecord(
        rollouts=pool.rollouts,
        verdicts=pool.verdicts,
        contexts=pool.contexts,
        stance_score=ragged(result.stance_score),
        stance=[[int(value) for value in row] for row in ragged(result.stance)],
        polarity=[[int(value) for value in row] for row in ragged(result.polarity)],
        gated_loss=ragged(result.gated_loss),
        loss_mask=scores.loss_mask,
        student_logprob=student_logprob,
        is_reused=is_reused,
        log_ratio=scores.teacher_logprob - student_logprob[:, None],
    )


def observations(record: StepRecord) -> list[Observation]:
    """One a rollout and teacher; none where the objective measures no stance.

    Evidence is what the verifier says, whatever the objective makes of it: one that imitates every teacher learns here
    which of them it should not.
    """
    rows = zip(record.verdicts, record.contexts, record.stance, record.stance_score, record.gated_loss, strict=False)
    return [
        Observation(
            source_ids=context.source_ids,
            outcome=verdict.outcome,
            polarity=verdict.outcome * stance,
            stance_score=stance_score,
            gated_loss=gated_loss,
        )
        for verdict, contexts, *measured in rows
        for context, stance, stance_score, gated_loss in zip(contexts, *measured, strict=True)
    ]
