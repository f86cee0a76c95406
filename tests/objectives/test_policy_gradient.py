"""Group-relative policy gradients against loops over the definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sgsd_lightning.objectives import GatedPolarity, GroupAdvantages, PolicyGradient, SampledDivergence, WeightedSum
from sgsd_lightning.objectives.divergence import Divergence
from sgsd_lightning.types import TokenScores, Verdict
from tests.objectives.verdicts import reward_verdict

LENGTHS = [5, 3, 7, 1, 4, 6]
GROUPS = [0, 0, 0, 1, 1, 2]
REWARDS = [1.0, 0.0, 0.0, 1.0, 0.5, 1.0]


def verdicts() -> list[Verdict]:
    return [reward_verdict(reward) for reward in REWARDS]


def scores(num_contexts: int = 0, drift: float = 0.5) -> TokenScores:
    """Completions of LENGTHS tokens whose probabilities have drifted since they were sampled."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    num, length = len(LENGTHS), max(LENGTHS)
    mask = torch.arange(length) < torch.tensor(LENGTHS)[:, None]
    sampled = torch.where(mask, -noise(num, length).abs(), 0.0)
    return TokenScores(
        student_logprob=torch.where(mask, sampled + drift * noise(num, length), 0.0).requires_grad_(),
        teacher_logprob=torch.where(mask[:, None], -noise(num, num_contexts, length).abs(), 0.0),
        completion_mask=mask,
        loss_mask=mask & (torch.arange(length) != 1),
        context_weight=torch.tensor([[0.75, 0.25][:num_contexts]] * num, dtype=torch.float64).reshape(
            num, num_contexts
        ),
        group=torch.tensor(GROUPS),
        step_index=torch.zeros(num, length, dtype=torch.int64),
        sampled_logprob=sampled,
    )


def group_of(row: int) -> list[int]:
    return [other for other, group in enumerate(GROUPS) if group == GROUPS[row]]


def advantage(row: int, normalise: bool) -> float:
    rewards = [REWARDS[other] for other in group_of(row)]
    mean = sum(rewards) / len(rewards)
    if not normalise:
        return REWARDS[row] - mean
    variance = sum((reward - mean) ** 2 for reward in rewards) / max(1, len(rewards) - 1)
    return (REWARDS[row] - mean) / (math.sqrt(variance) + 1e-4)


@pytest.mark.parametrize("level", ["sequence", "token", "constant"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.4)])
def test_loss_and_gradient_are_those_of_the_definition(level: str, normalise: bool, low: float, high: float) -> None:
    given = scores()
    objective = PolicyGradient(
        advantages=GroupAdvantages(normalise),
        clip_low=low,
        clip_high=high,
        loss_level=level,  # type: ignore[arg-type]
        max_completion_tokens=10,
    )
    result = objective(given, verdicts())
    expected, slope = 0.0, torch.zeros_like(given.student_logprob)
    for row, length in enumerate(LENGTHS):
        sizes = {"sequence": length, "constant": 10}
        group_lengths = [LENGTHS[other] for other in group_of(row)]
        size = sizes.get(level, sum(group_lengths) / len(group_lengths))
        own = advantage(row, normalise)
        for token in range(length):
            ratio = math.exp((given.student_logprob[row, token] - given.sampled_logprob[row, token]).item())
            clipped = min(max(ratio, 1 - low), 1 + high)
            expected -= min(ratio * own, clipped * own) / size / len(LENGTHS)
            if ratio * own <= clipped * own and own:
                slope[row, token] = -own * ratio / size / len(LENGTHS)
    assert result.loss.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(result.loss, given.student_logprob)
    torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-9)


def test_fresh_rollouts_give_the_plain_policy_gradient() -> None:
    given = scores(drift=0.0)
    (gradient,) = torch.autograd.grad(
        PolicyGradient(GroupAdvantages(normalise=False))(given, verdicts()).loss, given.student_logprob
    )
    for row, length in enumerate(LENGTHS):
        expected = -advantage(row, False) / length / len(LENGTHS)
        torch.testing.assert_close(gradient[row, :length], torch.full((length,), expected, dtype=torch.float64))


def test_a_group_of_one_or_of_equal_rewards_teaches_nothing() -> None:
    given = scores()
    equal = [reward_verdict(1.0)] * len(LENGTHS)
    result = PolicyGradient()(given, equal)
    assert result.loss.item() == 0
    (gradient,) = torch.autograd.grad(result.loss, given.student_logprob)
    assert not gradient.any()
    assert result.metrics["objective/active_rollout_frac"].value == 0  # type: ignore[union-attr]


def test_the_penalty_is_the_mean_of_its_estimator_over_tokens() -> None:
    given = scores(num_contexts=1)
    without, with_penalty = (PolicyGradient(kl_weight=weight)(given, verdicts()).loss.item() for weight in (0.0, 0.5))
    penalties = []
    for row, length in enumerate(LENGTHS):
        differences = (given.teacher_logprob[row, 0] - given.student_logprob[row])[:length].tolist()
        penalties.append(sum(math.exp(d) - d - 1 for d in differences) / length)
    assert with_penalty - without == pytest.approx(0.5 * sum(penalties) / len(LENGTHS), rel=1e-6)
    with pytest.raises(ValueError, match="contexts to PlainPrompt"):
        PolicyGradient(kl_weight=0.5)(scores(), verdicts())


@pytest.mark.parametrize("clip", [None, 0.3])
def test_the_sampled_divergence_weighs_tokens_by_what_the_mixture_thinks_of_them(clip: float | None) -> None:
    given = scores(num_contexts=2)
    (gradient,) = torch.autograd.grad(SampledDivergence(clip)(given, verdicts()).loss, given.student_logprob)
    expected = torch.zeros_like(gradient)
    for row in range(len(LENGTHS)):
        counted = given.loss_mask[row].sum().item()
        for token in given.loss_mask[row].nonzero().flatten().tolist():
            teachers = given.teacher_logprob[row, :, token].exp()
            mixture = math.log(0.75 * teachers[0] + 0.25 * teachers[1])
            value = mixture - given.student_logprob[row, token].item()
            value = value if clip is None else max(-clip, min(clip, value))
            expected[row, token] = -value / counted / len(LENGTHS)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_without_teachers_the_sampled_divergence_is_nothing() -> None:
    given = scores()
    result = SampledDivergence()(given, verdicts())
    (gradient,) = torch.autograd.grad(result.loss, given.student_logprob)
    assert result.loss.item() == 0
    assert not gradient.any()


def test_a_weighted_sum_is_the_sum_of_losses_and_gradients_and_keeps_the_stances() -> None:
    given = scores(num_contexts=2)
    parts = [PolicyGradient(), GatedPolarity(stance_threshold=0.0)]
    both = WeightedSum(parts, [0.5, 2.0])(given, verdicts())
    results = [part(given, verdicts()) for part in parts]
    assert both.loss.item() == pytest.approx(0.5 * results[0].loss.item() + 2 * results[1].loss.item())
    gradients = [torch.autograd.grad(result.loss, given.student_logprob)[0] for result in (both, *results)]
    torch.testing.assert_close(gradients[0], 0.5 * gradients[1] + 2 * gradients[2])
    assert both.stances is not None
    assert results[1].stances is not None
    assert torch.equal(both.stances.polarity, results[1].stances.polarity)
    assert {"objective_1/loss", "objective_1/clipped_token_frac", "objective_2/helpful_frac"} <= both.metrics.keys()


def test_a_sum_of_different_divergences_is_refused() -> None:
    with pytest.raises(ValueError, match="different supports or divergences"):
        WeightedSum([Divergence("jsd"), Divergence("forward_kl")], [1.0, 1.0])
    with pytest.raises(ValueError, match="one number an objective; got 1 objectives and 2 weights"):
        WeightedSum([PolicyGradient()], [1.0, 2.0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_low": 0.0}, "objective.clip_low must be in"),
        ({"clip_high": 0.0}, "objective.clip_high must be above 0"),
        ({"loss_level": "batch"}, "objective.loss_level must be one of"),
        ({"max_completion_tokens": 0}, "objective.max_completion_tokens must be at least 1"),
        ({"kl_weight": -1.0}, "objective.kl_weight must be 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyGradient(**settings)  # type: ignore[arg-type]
