"""Our losses against TRL's own code, in float64 on the same random inputs.

TRL comes with the extra `dev`; alone it is ``pip install -c constraints.txt trl``. Its functions are called where they
are functions: GKD's and SDFT's losses, and the whole of ``GRPOTrainer._compute_loss`` on a stand-in for the trainer
(hence the pinned version). Its advantages are computed in the middle of sampling, so their formula is written down anew
around its standard deviation. Where TRL and we define something differently, a test says how.
"""

from __future__ import annotations

import importlib
import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sgsd_kernels import linear_divergence
from torch import Tensor

from sgsd_lightning.objectives import Divergence, GroupAdvantages, PolicyGradient, SampledDivergence
from sgsd_lightning.objectives.advantages import group_advantages
from sgsd_lightning.objectives.policy_gradient import LossLevel
from sgsd_lightning.types import TokenScores, Verdict
from tests.objectives.verdicts import reward_verdict

LENGTHS = [5, 3, 7, 1, 4, 6, 2, 7]
GROUP_SIZE = 4
REWARDS = [1.0, 0.0, 0.75, 0.0, 0.0, 1.0, 0.0, 1.0]
WIDTH, VOCAB_SIZE = 6, 23
BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]


def trl(module: str) -> Any:
    """A module of TRL, imported by the test that needs it: it takes seconds, which every test run would wait for."""
    pytest.importorskip("trl", reason="needs TRL, of the extra `dev`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def token_mask() -> Tensor:
    return torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def verdicts(rows: slice = slice(None)) -> list[Verdict]:
    return [reward_verdict(reward) for reward in REWARDS[rows]]


def token_scores(student: Tensor, teacher: Tensor | None = None, **others: Tensor) -> TokenScores:
    """Of rollouts of LENGTHS tokens in groups of GROUP_SIZE, with at most one teacher."""
    num, length = student.shape
    mask = token_mask()[:num]
    return TokenScores(
        student_logprob=student,
        teacher_logprob=student.new_zeros(num, 0, length) if teacher is None else teacher[:, None],
        completion_mask=mask,
        loss_mask=mask,
        context_weight=student.new_ones(num, 0 if teacher is None else 1),
        group=torch.arange(num) // GROUP_SIZE,
        step_index=torch.zeros(mask.shape, dtype=torch.int64),
        **{"sampled_logprob": student.detach(), **others},
    )


def kind_of(beta: float) -> dict[str, Any]:
    """TRL's beta: the teacher's share of the mixture, 0 being KL(teacher || student) and 1 KL(student || teacher)."""
    ends: dict[float, dict[str, Any]] = {0.0: {"kind": "forward_kl"}, 1.0: {"kind": "reverse_kl"}}
    return ends.get(beta, {"kind": "jsd", "beta": beta})


class Distributions:
    """Hidden states of student and teacher under one head, and the logits that TRL wants to see."""

    def __init__(self) -> None:
        shape = (len(LENGTHS), max(LENGTHS), WIDTH)
        self.hidden, self.teacher_hidden = normal(*shape).requires_grad_(), normal(*shape)
        self.weight = normal(VOCAB_SIZE, WIDTH).requires_grad_()

    @property
    def logits(self) -> tuple[Tensor, Tensor]:
        """[B, T, V] of the student, with gradient, and of the teacher."""
        return self.hidden @ self.weight.T, self.teacher_hidden @ self.weight.detach().T

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, (self.hidden, self.weight))

    def loss(self, objective: Divergence, rows: slice = slice(None)) -> Tensor:
        """The objective's, over hidden states as the scorer has it computed."""
        request, mask = objective.request, token_mask()[rows]
        value = linear_divergence(
            self.hidden[rows].flatten(0, 1),
            self.teacher_hidden[rows].flatten(0, 1),
            self.weight,
            kind=request.kind,
            beta=request.beta,
            temperature=request.temperature,
            support_top_k=request.support_top_k,
            support_tail=request.support_tail,
            mask=mask.flatten(),
        ).view(mask.shape)
        nothing = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.float64)[rows]
        scores = token_scores(nothing, nothing, divergence=value)
        scores = TokenScores(**{**fields_of(scores), "completion_mask": mask, "loss_mask": mask})
        return objective(scores, verdicts(rows)).loss


def fields_of(scores: TokenScores) -> dict[str, Any]:
    return {name: getattr(scores, name) for name in TokenScores.__slots__}


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("beta", BETAS)
def test_the_divergence_is_gkds_of_each_rollout_averaged_over_rollouts(beta: float, temperature: float) -> None:
    """Neither scales the loss by the temperature."""
    theirs = trl("trl.experimental.gkd").GKDTrainer.generalized_jsd_loss
    inputs, labels = Distributions(), torch.where(token_mask(), 0, -100)
    student, teacher = inputs.logits
    wanted = torch.stack(
        [
            theirs(student[row, None], teacher[row, None], labels[row, None], beta=beta, temperature=temperature)
            for row in range(len(LENGTHS))
        ]
    ).mean()
    actual = inputs.loss(Divergence(**kind_of(beta), temperature=temperature))
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(inputs.gradients(actual), inputs.gradients(wanted), rtol=1e-10, atol=1e-13)


def test_over_a_batch_gkd_weighs_tokens_alike_and_we_weigh_rollouts_alike() -> None:
    theirs = trl("trl.experimental.gkd").GKDTrainer.generalized_jsd_loss
    inputs, labels = Distributions(), torch.where(token_mask(), 0, -100)
    of_each = [inputs.loss(Divergence(), slice(row, row + 1)) for row in range(len(LENGTHS))]
    by_tokens = sum(length * loss for length, loss in zip(LENGTHS, of_each, strict=True)) / sum(LENGTHS)
    torch.testing.assert_close(theirs(*inputs.logits, labels), by_tokens)
    torch.testing.assert_close(inputs.loss(Divergence()), torch.stack(of_each).mean())


@pytest.mark.parametrize("support_tail", [False, True])
@pytest.mark.parametrize("beta", BETAS)
def test_a_support_is_sdfts_when_it_is_the_teachers(beta: float, support_tail: bool) -> None:
    """TRL's trainers take the student's top-k where they hold its logits, and the teacher's where a server sends it."""
    theirs = trl("trl.experimental.sdft.loss_utils")
    inputs = Distributions()
    student, teacher = (logits.log_softmax(-1) for logits in inputs.logits)
    kept = teacher.topk(5, dim=-1).indices
    complete = theirs.add_tail_bucket if support_tail else lambda logprob: logprob.log_softmax(-1)
    entries = theirs.compute_divergence(complete(student.gather(-1, kept)), complete(teacher.gather(-1, kept)), beta)
    wanted = ((entries * token_mask()).sum(-1) / token_mask().sum(-1)).mean()
    actual = inputs.loss(Divergence(**kind_of(beta), support_top_k=5, support_tail=support_tail))
    torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=0)
    torch.testing.assert_close(inputs.gradients(actual), inputs.gradients(wanted), rtol=1e-8, atol=1e-12)


def test_the_sampled_divergence_has_the_gradient_of_sdfts() -> None:
    theirs = trl("trl.experimental.sdft.loss_utils").compute_sampled_token_self_distillation_loss
    inputs, mask = Distributions(), token_mask()
    ids = torch.randint(VOCAB_SIZE, mask.shape)
    wanted = ((theirs(*inputs.logits, ids, distillation_alpha=1.0) * mask).sum(-1) / mask.sum(-1)).mean()
    student, teacher = (logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1) for logits in inputs.logits)
    actual = SampledDivergence()(token_scores(student, teacher), verdicts()).loss
    torch.testing.assert_close(actual, wanted)
    torch.testing.assert_close(inputs.gradients(actual), inputs.gradients(wanted))


@pytest.mark.parametrize("unjudged", [(), (1, 6), (4, 5, 6), (8, 9, 10, 11)])
@pytest.mark.parametrize("normalise", [True, False])
def test_advantages_are_grpos(normalise: bool, unjudged: tuple[int, ...]) -> None:
    """``GRPOTrainer._generate_and_score_completions``: scale_rewards "group" and "none"; no reward is NaN there."""
    nanstd = trl("trl.trainer.utils").nanstd
    rewards = torch.tensor([*REWARDS, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)  # a last group of equals
    rewards[list(unjudged)] = torch.nan
    groups = rewards.view(-1, GROUP_SIZE)
    wanted = groups - groups.nanmean(dim=1, keepdim=True)
    if normalise:
        # a deviation of one reward is NaN there
        wanted = wanted / (nanstd(groups, dim=1).nan_to_num(0.0)[:, None] + 1e-4)
    wanted = wanted.flatten().nan_to_num(0.0)
    group = torch.arange(len(rewards)) // GROUP_SIZE
    is_judged = ~rewards.isnan()
    actual = group_advantages(rewards.nan_to_num(9.0), group, normalise, is_judged)
    torch.testing.assert_close(actual, wanted, rtol=1e-7, atol=1e-15)  # its n / (n - 1) is float32
    given = [reward_verdict(None if index in unjudged else reward) for index, reward in enumerate(rewards.tolist())]
    scores = SimpleNamespace(student_logprob=normal(len(rewards), 3), group=group)
    torch.testing.assert_close(GroupAdvantages(normalise)(scores, given), wanted[:, None], rtol=1e-7, atol=1e-15)


class StandInTrainer(SimpleNamespace):
    """As much of a `GRPOTrainer` as its ``_compute_loss`` reads, in evaluation mode: no gradient accumulation."""

    def __init__(self, student: Tensor, loss_type: str, **settings: Any) -> None:
        super().__init__(
            _get_per_token_logps_and_entropies=lambda *_, **__: (student, torch.zeros_like(student), None),
            loss_type=loss_type,
            beta=settings.pop("beta", 0.0),
            epsilon_low=0.2,
            epsilon_high=0.28,
            importance_sampling_level="token",
            max_completion_length=10,
            off_policy_mask_threshold=None,
            top_entropy_quantile=1.0,
            use_vllm=False,
            aux_loss_enabled=False,
            args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
            accelerator=SimpleNamespace(
                num_processes=1, gather=lambda tensor: tensor, reduce=lambda tensor, reduction: tensor
            ),
            model=SimpleNamespace(training=False),
            _entropy_bonus_enabled=False,
            _metrics={"eval": defaultdict(list)},
            **settings,
        )

    def loss(self, scores: TokenScores, advantages: Tensor, rows: slice = slice(None)) -> Tensor:
        """TRL's loss on some rollouts."""
        mask = scores.completion_mask[rows].long()
        inputs = {
            "prompt_ids": mask[:, :1],
            "prompt_mask": mask[:, :1],
            "completion_ids": mask,
            "completion_mask": mask,
            "advantages": advantages[rows],
            "old_per_token_logps": scores.sampled_logprob[rows],
            "num_items_in_batch": mask.sum(),
        }
        if self.beta:
            inputs["ref_per_token_logps"] = scores.teacher_logprob[rows, 0]
        loss: Tensor = trl("trl.trainer.grpo_trainer").GRPOTrainer._compute_loss(self, None, inputs)
        return loss


def drifted_scores(with_reference: bool = False) -> TokenScores:
    """Tokens whose probabilities moved by a factor of e^0.5 or so since they were sampled."""
    mask = token_mask()
    sampled = torch.where(mask, -normal(*mask.shape).abs(), 0.0)
    student = torch.where(mask, sampled + 0.5 * normal(*mask.shape), 0.0).requires_grad_()
    teacher = torch.where(mask, sampled + 0.3 * normal(*mask.shape), 0.0) if with_reference else None
    return token_scores(student, teacher, sampled_logprob=sampled)


def policy_gradient(level: LossLevel, normalise: bool, kl_weight: float = 0.0) -> PolicyGradient:
    return PolicyGradient(
        advantages=GroupAdvantages(normalise),
        clip_low=0.2,
        clip_high=0.28,
        loss_level=level,
        max_completion_tokens=10,
        kl_weight=kl_weight,
    )


def assert_same(actual: Tensor, wanted: Tensor, scores: TokenScores) -> None:
    """Losses and their gradients in the student."""
    torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=0)  # our token counts are float32
    found, expected = (torch.autograd.grad(loss, scores.student_logprob)[0] for loss in (actual, wanted))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def advantages_of(scores: TokenScores, normalise: bool) -> Tensor:
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    return group_advantages(rewards, scores.group, normalise, torch.ones_like(rewards, dtype=torch.bool))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("loss_type", "level"), [("grpo", "sequence"), ("dr_grpo", "constant")])
def test_grpo_and_dr_grpo_are_trls(loss_type: str, level: LossLevel, normalise: bool) -> None:
    scores = drifted_scores()
    trainer = StandInTrainer(scores.student_logprob, loss_type)
    wanted = trainer.loss(scores, advantages_of(scores, normalise))
    result = policy_gradient(level, normalise)(scores, verdicts())
    assert_same(result.loss, wanted, scores)
    clipped = {name: trainer._metrics["eval"][f"clip_ratio/{name}_mean"][0] for name in ("low", "high", "region")}
    assert clipped["low"] > 0.02
    assert clipped["high"] > 0.02
    # TRL counts a ratio outside the range only where the sign of the advantage lets the clip bind
    ours = result.metrics["objective/clipped_token_frac"].value  # type: ignore[union-attr]
    assert clipped["region"] < ours < 1


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
def test_the_token_level_is_bnpos_and_dapos_of_each_group_averaged_over_groups(loss_type: str) -> None:
    """TRL divides by all tokens of the batch, so a group of long answers weighs more; with one group it is the same."""
    scores = drifted_scores()
    advantages = advantages_of(scores, True)
    groups = [slice(first, first + GROUP_SIZE) for first in range(0, len(LENGTHS), GROUP_SIZE)]
    of_each = [
        StandInTrainer(scores.student_logprob[rows], loss_type).loss(scores, advantages, rows) for rows in groups
    ]
    assert_same(policy_gradient("token", True)(scores, verdicts()).loss, torch.stack(of_each).mean(), scores)


def test_the_penalty_is_grpos() -> None:
    """With the other loss types TRL divides the penalty as it does the gain; ours is always the mean over tokens."""
    scores = drifted_scores(with_reference=True)
    trainer = StandInTrainer(scores.student_logprob, "grpo", beta=0.3)
    wanted = trainer.loss(scores, advantages_of(scores, True))
    assert_same(policy_gradient("sequence", True, kl_weight=0.3)(scores, verdicts()).loss, wanted, scores)
