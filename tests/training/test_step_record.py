"""What the objective measured, brought back to each rollout's own contexts, and what becomes evidence of it."""

from __future__ import annotations

import pytest
import torch

from sgsd_lightning.objectives import ObjectiveResult
from sgsd_lightning.training.step_record import observations, record_step
from sgsd_lightning.types import Taught, TeacherContext, TeacherStances, TokenScores
from tests.support.tiny import PROBLEMS, judged, tiny_rollout, tiny_row

CONTEXTS = [
    [
        TeacherContext(text="a", weight=0.5, source_ids=("s1", "m1")),
        TeacherContext(text="b", weight=0.5, source_ids=("s2", "m2")),
    ],
    [TeacherContext(text="a", weight=1.0, source_ids=("s1", "m1"))],
    [],
]


def taught(outcomes: list[int]) -> Taught:
    rollouts = [tiny_rollout(problem, [1], [2]) for problem in PROBLEMS[:3]]
    return Taught(
        sampled=[judged(rollout, outcome) for rollout, outcome in zip(rollouts, outcomes, strict=True)],
        contexts=CONTEXTS,
        rows=[tiny_row([1], [2], [[1]] * len(contexts), group=group) for group, contexts in enumerate(CONTEXTS)],
        num_over_long=0,
    )


def scores() -> TokenScores:
    generator = torch.Generator().manual_seed(0)
    return TokenScores(
        student_logprob=-torch.rand(3, 4, generator=generator).requires_grad_(),
        teacher_logprob=-torch.rand(3, 2, 4, generator=generator),
        completion_mask=torch.ones(3, 4, dtype=torch.bool),
        loss_mask=torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool),
        context_weight=torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]),
        group=torch.arange(3),
        step_index=torch.zeros(3, 4, dtype=torch.int64),
        sampled_logprob=torch.zeros(3, 4),
    )


def result(polarity: list[list[int]]) -> ObjectiveResult:
    return ObjectiveResult(
        loss=torch.tensor(0.0),
        stances=TeacherStances(
            stance_score=torch.tensor([[0.5, -0.25], [0.125, 0.0], [0.0, 0.0]]),
            stance=torch.tensor([[1, -1], [1, 0], [0, 0]]),
            polarity=torch.tensor(polarity),
            gated_loss=torch.tensor([[0.1, 0.2], [0.3, 0.0], [0.0, 0.0]]),
        ),
    )


@pytest.mark.parametrize("polarity", [[[1, -1], [-1, 0], [0, 0]], [[1, 1], [1, 1], [1, 1]]])
def test_evidence_is_what_the_verifier_says_whatever_the_objective_takes_teachers_for(
    polarity: list[list[int]],
) -> None:
    record = record_step(taught([1, -1, 1]), scores(), result(polarity), policy="policy")
    found = [(seen.source_ids, seen.outcome, seen.polarity, seen.stance_score) for seen in observations(record)]
    assert found == [(("s1", "m1"), 1, 1, 0.5), (("s2", "m2"), 1, -1, -0.25), (("s1", "m1"), -1, -1, 0.125)]
    assert [[stance.polarity for stance in each] for each in record.stances] == [polarity[0], polarity[1][:1], []]
    assert [seen.gated_loss for seen in observations(record)] == pytest.approx([0.1, 0.2, 0.3])


def test_an_objective_that_measures_no_stance_gives_no_evidence() -> None:
    record = record_step(taught([1, -1, 1]), scores(), ObjectiveResult(loss=torch.tensor(0.0)), policy="policy")
    assert observations(record) == []
    assert record.stances == []


def test_the_record_holds_each_token_without_its_graph() -> None:
    measured = scores()
    record = record_step(taught([1, -1, 1]), measured, ObjectiveResult(loss=torch.tensor(0.0)), policy="policy")
    assert not record.student_logprob.requires_grad
    torch.testing.assert_close(
        record.log_ratio[0, 1], measured.teacher_logprob[0, 1] - measured.student_logprob[0].detach()
    )
    assert not record.log_ratio.requires_grad
