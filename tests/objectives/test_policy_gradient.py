"""Group-relative policy gradients against loops over the definition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sgsd_lightning.objectives import (
    Advantages,
    GatedPolarity,
    GroupAdvantages,
    PolicyGradient,
    SampledDivergence,
    WeightedSum,
)
from sgsd_lightning.objectives.divergence import Divergence
from sgsd_lightning.objectives.policy_gradient import LossLevel
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


def without(given: TokenScores, rows: Sequence[int]) -> TokenScores:
    """The same batch, had these rollouts never been sampled."""
    kept = [row for row in range(len(LENGTHS)) if row not in rows]
    values = {
        name: value[kept].detach() if isinstance(value := getattr(given, name), Tensor) else value
        for name in TokenScores.__slots__
    }
    values["student_logprob"].requires_grad_()
    # groups are counted from 0
    values["group"] = values["group"].unique(return_inverse=True)[1]
    return TokenScores(**values)


@pytest.mark.parametrize("unjudged", [[1], [0, 2], [3], [5], [0, 1, 2], [0, 3, 5]])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("level", ["sequence", "token", "constant"])
def test_a_rollout_that_could_not_be_judged_changes_nothing_of_the_others(
    level: LossLevel, normalise: bool, unjudged: list[int]
) -> None:
    """It counts 0 itself; the mean is still over all rollouts."""
    objective = PolicyGradient(
        GroupAdvantages(normalise), loss_level=level, max_completion_tokens=10, kl_weight=0.3, clip_high=0.28
    )
    given = scores(num_contexts=1)
    judged = [reward_verdict(None if row in unjudged else reward) for row, reward in enumerate(REWARDS)]
    others = [verdict for verdict in judged if verdict.reward is not None]
    alone = without(given, unjudged)
    with_them, without_them = objective(given, judged), objective(alone, others)
    share = len(others) / len(judged)
    torch.testing.assert_close(with_them.loss, share * without_them.loss, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(with_them.loss, given.student_logprob)
    (expected,) = torch.autograd.grad(without_them.loss, alone.student_logprob)
    assert not gradient[unjudged].any()
    kept = [row for row in range(len(LENGTHS)) if row not in unjudged]
    torch.testing.assert_close(gradient[kept], share * expected, rtol=1e-6, atol=1e-12)
    assert gradient[kept].any()
    advantages = objective.advantages
    assert not advantages(given, judged)[unjudged].any()
    torch.testing.assert_close(advantages(given, judged)[kept], advantages(alone, others), rtol=1e-9, atol=0)


class GivenAdvantages(Advantages):
    """Numbers per token, whatever was sampled; padding holds anything."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> Tensor:
        return self.values


@pytest.mark.parametrize("level", ["sequence", "token", "constant"])
def test_advantages_of_tokens_weigh_each_token(level: LossLevel) -> None:
    given = scores()
    length = max(LENGTHS)
    values = torch.randn(len(LENGTHS), length, dtype=torch.float64)
    values[3] = 0.0
    padded = torch.where(given.completion_mask, values, 1e6)
    objective = PolicyGradient(GivenAdvantages(padded), loss_level=level, max_completion_tokens=10, clip_high=0.28)
    result = objective(given, verdicts())
    expected, slope = 0.0, torch.zeros_like(given.student_logprob)
    for row, num_tokens in enumerate(LENGTHS):
        group_lengths = [LENGTHS[other] for other in group_of(row)]
        sizes = {"sequence": num_tokens, "constant": 10, "token": sum(group_lengths) / len(group_lengths)}
        for token in range(num_tokens):
            own = values[row, token].item()
            ratio = math.exp((given.student_logprob[row, token] - given.sampled_logprob[row, token]).item())
            clipped = min(max(ratio, 0.8), 1.28)
            expected -= min(ratio * own, clipped * own) / sizes[level] / len(LENGTHS)
            if own and ratio * own <= clipped * own:
                slope[row, token] = -own * ratio / sizes[level] / len(LENGTHS)
    assert result.loss.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(result.loss, given.student_logprob)
    torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-9)
    measured = {name: value.value.item() for name, value in result.metrics.items()}  # type: ignore[union-attr]
    assert measured["objective/advantage_abs"] == pytest.approx(values[given.completion_mask].abs().mean().item())
    assert measured["objective/active_rollout_frac"] == pytest.approx(5 / 6)


def test_one_advantage_a_rollout_is_the_same_for_each_of_its_tokens() -> None:
    given = scores()
    of_rollouts = GroupAdvantages()(given, verdicts())
    assert of_rollouts.shape == (len(LENGTHS), 1)
    spread = GivenAdvantages(of_rollouts.expand(-1, max(LENGTHS)))
    results = [PolicyGradient(advantages)(given, verdicts()) for advantages in (None, spread)]
    assert results[0].loss.item() == results[1].loss.item()
    gradients = [torch.autograd.grad(result.loss, given.student_logprob)[0] for result in results]
    assert torch.equal(*gradients)


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
    with pytest.raises(ValueError, match="one number per objective; got 1 objectives and 2 weights"):
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
