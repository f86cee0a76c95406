"""Records a micro-batch of training in plain numbers, for callbacks and for the contexts' evidence."""

from __future__ import annotations

from sgsd_lightning.objectives import ObjectiveResult
from sgsd_lightning.types import Observation, Stance, StepRecord, Taught, TokenScores


def record_step(
    taught: Taught, scores: TokenScores, result: ObjectiveResult, *, policy: str, is_reused: bool = False
) -> StepRecord:
    """Bring the objective's [B, K] measurements back to each rollout's own contexts."""
    student_logprob = scores.student_logprob.detach()
    return StepRecord(
        judged=taught.scored,
        contexts=taught.contexts,
        stances=_stances(taught, result),
        loss_mask=scores.loss_mask,
        student_logprob=student_logprob,
        is_reused=is_reused,
        log_ratio=scores.teacher_logprob - student_logprob[:, None],
        policy=policy,
    )


def _stances(taught: Taught, result: ObjectiveResult) -> list[list[Stance]]:
    measured = result.stances
    if measured is None:
        return []
    columns = (measured.stance_score, measured.stance, measured.polarity, measured.gated_loss)
    return [
        [
            Stance(stance_score=score, stance=int(stance), polarity=int(polarity), gated_loss=gated_loss)
            for _, score, stance, polarity, gated_loss in zip(contexts, *rows, strict=False)
        ]
        for contexts, *rows in zip(taught.contexts, *(column.tolist() for column in columns), strict=True)
    ]


def observations(record: StepRecord) -> list[Observation]:
    """One per rollout and teacher; none where the objective measures no stance.

    Evidence is what the verifier says, whatever the objective makes of it: one that imitates every teacher learns here
    which of them it should not.
    """
    return [
        Observation(
            source_ids=context.source_ids,
            outcome=judged.verdict.outcome,
            polarity=judged.verdict.outcome * stance.stance,
            stance_score=stance.stance_score,
            gated_loss=stance.gated_loss,
        )
        for judged, contexts, stances in zip(record.judged, record.contexts, record.stances, strict=False)
        for context, stance in zip(contexts, stances, strict=True)
    ]
