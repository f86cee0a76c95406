"""A row of several token sequences is scored as its turns are, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.policy import LiveTeacher
from sgsd_lightning.scoring import Scorer
from sgsd_lightning.types import DivergenceRequest, ScoreRequest, ScoreRow, TeacherContext, TokenScores, TokenSequence
from tests.support.tiny import tiny_row

MakeModel = Callable[..., PreTrainedModel]
MakeIds = Callable[[int, int], tuple[int, ...]]

REQUESTS = {
    "log-probabilities": ScoreRequest(),
    "support": ScoreRequest(support_top_k=3),
    "divergence": ScoreRequest(divergence=DivergenceRequest(kind="forward_kl")),
}


def _turns(make_ids: MakeIds) -> list[ScoreRow]:
    """Three turns with two teachers each; one of them was sampled nothing."""
    shapes = [(5, 6, (8, 3)), (14, 0, (2, 2)), (19, 9, (25, 4))]
    return [
        tiny_row(
            make_ids(num_prompt, turn),
            make_ids(num_ids, turn + 20),
            [make_ids(length, 10 * turn + place + 40) for place, length in enumerate(teachers)],
            [0.75, 0.25],
            loss_mask=torch.arange(num_ids) % 3 != 1,
            sampled_logprob=-torch.rand(num_ids),
        )
        for turn, (num_prompt, num_ids, teachers) in enumerate(shapes)
    ]


def _joined(turns: Sequence[ScoreRow]) -> ScoreRow:
    return ScoreRow(
        student=tuple(sequence for turn in turns for sequence in turn.student),
        teachers=tuple(
            tuple(sequence for sequences in of_turns for sequence in sequences)
            for of_turns in zip(*(turn.teachers for turn in turns), strict=True)
        ),
        context_weight=turns[0].context_weight,
        loss_mask=torch.cat([turn.loss_mask for turn in turns]),
        sampled_logprob=torch.cat([turn.sampled_logprob for turn in turns]),
        step_index=torch.cat([torch.full((len(turn.targets),), index) for index, turn in enumerate(turns)]),
    )


def _one_after_the_other(values: Tensor, lengths: Sequence[int], dim: int) -> Tensor:
    """The rows of separately scored turns [turns, ..., T], put together along their tokens."""
    return torch.cat([row.narrow(dim - 1, 0, length) for row, length in zip(values, lengths, strict=True)], dim=dim - 1)


def _measured(scores: TokenScores) -> dict[str, tuple[Tensor, int]]:
    """What was measured, and the dimension of its tokens."""
    named: dict[str, tuple[Tensor | None, int]] = {
        "student_logprob": (scores.student_logprob, 1),
        "teacher_logprob": (scores.teacher_logprob, 2),
        "student_entropy": (scores.student_entropy, 1),
        "teacher_entropy": (scores.teacher_entropy, 2),
        "divergence": (scores.divergence, 1),
        "loss_mask": (scores.loss_mask, 1),
        "completion_mask": (scores.completion_mask, 1),
        "sampled_logprob": (scores.sampled_logprob, 1),
    }
    if scores.support is not None:
        target = scores.support.target_slot[..., None]
        named["support of the student"] = (scores.support.student_logprob.gather(-1, target)[..., 0], 2)
        named["support of the teachers"] = (scores.support.teacher_logprob.gather(-1, target)[..., 0], 2)
    return {name: (value, dim) for name, (value, dim) in named.items() if value is not None}


@pytest.mark.parametrize("budget", [1, 40, 10_000])
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("attention", ["sgsd_varlen", "sdpa"])
def test_a_row_of_turns_is_scored_as_rows_of_one_turn_are(
    attention: str, request_: ScoreRequest, budget: int, make_model: MakeModel, make_ids: MakeIds
) -> None:
    model, turns = make_model(attention=attention), _turns(make_ids)
    lengths = [len(turn.targets) for turn in turns]
    # a neighbour on either side, one without a teacher and a longer one
    before, after = tiny_row((5, 6), (7, 8, 9)), tiny_row((9,), make_ids(30, 99), [(4, 4)])
    scorer = Scorer(teacher_tokens_per_forward=budget)
    together = scorer.score(model, LiveTeacher(), [before, _joined(turns), after], request_)
    apart = scorer.score(model, LiveTeacher(), turns, request_)
    measured = _measured(apart)
    assert len(measured) >= 7
    for name, (value, dim) in _measured(together).items():
        expected = _one_after_the_other(measured[name][0], lengths, dim)
        found = value[1].narrow(dim - 1, 0, sum(lengths))
        torch.testing.assert_close(found, expected, atol=1e-5 if value.is_floating_point() else 0, rtol=0, msg=name)
        assert not value[1].narrow(dim - 1, 15, 15).any(), name
    assert together.step_index[1, :15].tolist() == [0] * 6 + [2] * 9


def test_gradients_are_those_of_rows_of_one_turn(make_model: MakeModel, make_ids: MakeIds) -> None:
    turns, coefficient = _turns(make_ids), torch.linspace(-1, 1, 15)
    gradients = []
    for rows in (turns, [_joined(turns)]):
        model = make_model()
        scores = Scorer().score(model, LiveTeacher(), rows, ScoreRequest())
        (scores.student_logprob[scores.completion_mask] * coefficient).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-5 * max(1.0, expected.abs().max().item()), rtol=0)


def test_a_teacher_may_read_the_same_ids_in_other_sequences(
    make_model: MakeModel, make_ids: MakeIds, own_logprob: Callable[..., Tensor]
) -> None:
    """One teacher reads both turns as one chat, one splits them in three, one reads what the student does."""
    model = make_model()
    first, second, between = make_ids(6, 1), make_ids(5, 2), make_ids(3, 3)
    prompt, hint = make_ids(4, 4), make_ids(9, 5)
    student = (
        TokenSequence.causal(prompt, first),
        TokenSequence.causal((*prompt, *first, *between), second),
    )
    start, later = len(hint) - 1, len(hint) + len(first) + len(between) - 1
    as_one = TokenSequence(
        input_ids=(*hint, *first, *between, *second[:-1]),
        predicted_from=(*range(start, start + 6), *range(later, later + 5)),
        targets=(*first, *second),
    )
    in_three = (
        TokenSequence.causal(hint, first[:2]),
        TokenSequence.causal((*hint, *first[:2]), (*first[2:],)),
        TokenSequence.causal((*hint, 7, 7), second),
    )
    row = ScoreRow(
        student=student,
        teachers=((as_one,), in_three, student),
        context_weight=(0.5, 0.25, 0.25),
        loss_mask=torch.ones(11, dtype=torch.bool),
        sampled_logprob=torch.zeros(11),
        step_index=torch.tensor([0] * 6 + [1] * 5),
    )
    scores = Scorer(teacher_tokens_per_forward=30).score(model, LiveTeacher(), [row], ScoreRequest())
    own = torch.cat([own_logprob(model, prompt, first), own_logprob(model, (*prompt, *first, *between), second)])
    continued = own_logprob(model, hint, (*first, *between, *second))
    expected = [
        torch.cat([continued[:6], continued[9:]]),
        torch.cat([own_logprob(model, hint, first), own_logprob(model, (*hint, 7, 7), second)]),
        own,
    ]
    torch.testing.assert_close(scores.student_logprob[0].double(), own, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.teacher_logprob[0].double(), torch.stack(expected), atol=1e-5, rtol=0)
    assert (expected[0] - expected[1])[6:].abs().max() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": ((TokenSequence.causal((4,), (7, 9)),),)}, "teacher 0 of a row is to predict other ids than"),
        ({"teachers": ((TokenSequence.causal((4,), (8, 7)),),)}, "teacher 0 of a row is to predict other ids than"),
        ({"teachers": ((TokenSequence.causal((4,), (7,)),),)}, "teacher 0 of a row is to predict other ids than"),
        ({"context_weight": (0.5, 0.5)}, "a row has 1 teachers but 2 context weights"),
        ({"context_weight": ()}, "a row has 1 teachers but 0 context weights"),
        ({"loss_mask": torch.ones(3, dtype=torch.bool)}, "a row of 2 ids has a loss_mask of 3"),
        ({"sampled_logprob": torch.zeros(1)}, "a row of 2 ids has a sampled_logprob of 1"),
        ({"step_index": torch.zeros(0)}, "a row of 2 ids has a step_index of 0"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    row = tiny_row((5, 6), (7, 8), [(4,)])
    with pytest.raises(ValueError, match=message):
        replace(row, **changes)


def test_a_teacher_is_shown_one_thing() -> None:
    with pytest.raises(ValueError, match="shows one of text, messages and sequences; got text and sequences"):
        TeacherContext(text="hint", sequences=(TokenSequence.causal((4,), (7,)),), weight=1.0)
