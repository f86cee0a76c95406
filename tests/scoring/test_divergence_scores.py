"""The scorer's divergences of whole distributions against each model's own logits, one sequence at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.objectives import Divergence
from sgsd_lightning.policy import FrozenTeacher, LiveTeacher, PolicyView
from sgsd_lightning.scoring import Scorer
from sgsd_lightning.types import DivergenceRequest, Rollout, ScoreRequest, TokenScores
from tests.support.tiny import verdict
from tests.support.tiny_models import rows_of

MakeModel = Callable[..., PreTrainedModel]
Distributions = Callable[[PreTrainedModel, Sequence[int], Sequence[int]], Tensor]
WEIGHTS = [[0.7, 0.3], [1.0], []]


@pytest.fixture
def rollouts(make_rollout: Callable[..., Rollout]) -> list[Rollout]:
    return [make_rollout(*lengths, seed=seed) for seed, lengths in enumerate([(5, 9), (2, 4), (7, 3)])]


@pytest.fixture
def prompts(make_ids: Callable[[int, int], tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    return [[make_ids(8, 50), make_ids(3, 51)], [make_ids(6, 53)], []]


def score(
    model: PreTrainedModel,
    rollouts: list[Rollout],
    prompts: list[list[tuple[int, ...]]],
    request: DivergenceRequest,
    teacher: PolicyView | None = None,
) -> TokenScores:
    scorer = Scorer(teacher_tokens_per_forward=25)
    teacher = teacher or LiveTeacher()
    return scorer.score(model, teacher, rows_of(rollouts, prompts, WEIGHTS), ScoreRequest(divergence=request))


def divergence(student: Tensor, teacher: Tensor, request: DivergenceRequest) -> Tensor:
    """[T] of log-probabilities [T, V], by the textbook."""
    if request.kind == "forward_kl":
        return (teacher.exp() * (teacher - student)).sum(-1)
    if request.kind == "reverse_kl":
        return (student.exp() * (student - teacher)).sum(-1)
    middle = (request.beta * teacher.exp() + (1 - request.beta) * student.exp()).log()
    first, second = teacher.exp() * (teacher - middle), student.exp() * (student - middle)
    return (request.beta * first + (1 - request.beta) * second).sum(-1)


def tempered(logprob: Tensor, temperature: float) -> Tensor:
    return (logprob / temperature).log_softmax(-1)


@pytest.mark.parametrize(
    "request_",
    [
        DivergenceRequest(kind="forward_kl"),
        DivergenceRequest(kind="reverse_kl"),
        DivergenceRequest(kind="jsd", beta=0.3),
        DivergenceRequest(kind="jsd", temperature=2.0),
    ],
)
@pytest.mark.parametrize("name", ["qwen3 tied", "granite", "gemma2"])
def test_values_and_gradients_are_those_of_the_mixture_over_the_models_own_logits(
    name: str,
    request_: DivergenceRequest,
    make_model: MakeModel,
    rollouts: list[Rollout],
    prompts: list[list[tuple[int, ...]]],
    own_distributions: Distributions,
) -> None:
    model = make_model(name)
    scores = score(model, rollouts, prompts, request_)
    assert scores.divergence is not None
    total = torch.zeros((), dtype=torch.float64)
    for row, rollout in enumerate(rollouts):
        length = len(rollout.completion_ids)
        actual = scores.divergence[row]
        assert not actual[length:].any()
        if not prompts[row]:
            assert not actual.any()
            continue
        student = tempered(own_distributions(model, rollout.prompt_ids, rollout.completion_ids), request_.temperature)
        with torch.no_grad():
            teachers = [
                tempered(own_distributions(model, ids, rollout.completion_ids), request_.temperature) + math.log(weight)
                for ids, weight in zip(prompts[row], WEIGHTS[row], strict=True)
            ]
        expected = divergence(student, torch.stack(teachers).logsumexp(0), request_) * scores.loss_mask[row, :length]
        torch.testing.assert_close(actual[:length].double(), expected, atol=1e-5, rtol=1e-4)
        total = total + expected.sum()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(scores.divergence.sum(), parameters, retain_graph=True, allow_unused=True)
    wanted = torch.autograd.grad(total, parameters, allow_unused=True)
    for actual_gradient, expected_gradient in zip(found, wanted, strict=True):
        if expected_gradient is not None and actual_gradient is not None:
            difference = (actual_gradient - expected_gradient).norm()
            assert difference <= 1e-3 * expected_gradient.norm() + 1e-6


@pytest.mark.parametrize("name", ["qwen3 tied", "qwen3 untied"])
def test_a_teacher_with_weights_of_its_own_is_read_through_its_own_head(
    name: str,
    make_model: MakeModel,
    rollouts: list[Rollout],
    prompts: list[list[tuple[int, ...]]],
    own_distributions: Distributions,
) -> None:
    model = make_model(name)
    teacher = FrozenTeacher()
    teacher.prepare(model)
    initial = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    request = DivergenceRequest(kind="forward_kl")
    scores = score(model, rollouts, prompts, request, teacher)
    assert scores.divergence is not None
    (ids,) = prompts[1]
    completion = rollouts[1].completion_ids
    with torch.no_grad():
        student = own_distributions(model, rollouts[1].prompt_ids, completion)
        expected = divergence(student, own_distributions(initial, ids, completion), request)
    kept = scores.loss_mask[1, : len(completion)]
    torch.testing.assert_close(scores.divergence[1, : len(completion)].double(), expected * kept, atol=1e-5, rtol=1e-4)


def test_a_batch_without_a_teacher_still_has_a_backward_pass(make_model: MakeModel, rollouts: list[Rollout]) -> None:
    model = make_model()
    rows = rows_of(rollouts, [[], [], []], [[], [], []])
    scores = Scorer().score(model, LiveTeacher(), rows, ScoreRequest(divergence=DivergenceRequest()))
    result = Divergence()(scores, [verdict(1)] * 3)
    assert result.loss.item() == 0
    result.loss.backward()
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_the_objective_is_the_mean_over_rollouts_of_means_over_counted_tokens(
    make_model: MakeModel, rollouts: list[Rollout], prompts: list[list[tuple[int, ...]]]
) -> None:
    objective = Divergence(kind="reverse_kl")
    scores = score(make_model(), rollouts, prompts, objective.request)
    assert scores.divergence is not None
    rows = zip(scores.divergence, scores.loss_mask, strict=True)
    means = [values[mask].sum() / max(1, int(mask.sum())) for values, mask in rows]
    loss = objective(scores, [verdict(-1)] * 3).loss
    torch.testing.assert_close(loss, torch.stack(means).sum() / 3)


def test_a_support_with_a_tail_reaches_the_scores(
    make_model: MakeModel, rollouts: list[Rollout], own_distributions: Distributions
) -> None:
    model = make_model()
    ids = [[rollout.prompt_ids[:2]] for rollout in rollouts]
    objective = Divergence(kind="forward_kl", support_top_k=3, support_tail=True)
    teachers = Scorer().score(model, LiveTeacher(), rows_of(rollouts, ids, [[1.0]] * 3), objective.score_request)
    assert teachers.divergence is not None
    for row, rollout in enumerate(rollouts):
        student = own_distributions(model, rollout.prompt_ids, rollout.completion_ids).exp()
        teacher = own_distributions(model, ids[row][0], rollout.completion_ids).exp()
        p, kept = teacher.topk(3)
        q = student.gather(-1, kept)
        p, q = (torch.cat([part, 1 - part.sum(-1, keepdim=True)], dim=-1) for part in (p, q))
        length = len(rollout.completion_ids)
        expected = (p * (p / q).log()).sum(-1) * teachers.loss_mask[row, :length]
        torch.testing.assert_close(teachers.divergence[row, :length].double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "tv"}, "objective.kind must be one of"),
        ({"beta": 1.0}, "objective.beta must lie strictly between 0 and 1"),
        ({"temperature": 0.0}, "objective.temperature must be above 0"),
        ({"token_clip": 0.0}, "objective.token_clip must be above 0"),
        ({"support_top_k": 0}, "objective.support_top_k must be -1"),
        ({"support_tail": True}, "objective.support_tail must come with objective.support_top_k above 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Divergence(**settings)  # type: ignore[arg-type]
