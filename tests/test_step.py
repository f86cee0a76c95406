"""The whole step: its loss and gradient against the definition over logits, finite differences, and every split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from sgsd_kernels.dispatch import IMPLEMENTATION_VARIABLE
from sgsd_kernels.gate import reference
from torch import Tensor

from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.policy import FrozenTeacher, LoraSettings, LossMaskRule, Scorer
from sgsd_lightning.teacher_pool import TeacherPool, build_teacher_pool
from tests.tiny import PROBLEMS, NumberedContexts, tiny_module, tiny_policy, tiny_rollout, verdict

SENSITIVE = {"gate_temperature": 0.5, "log_ratio_clip": 0.02, "stance_threshold": 1e-6}
"""Settings under which a random model's tiny log-ratios matter."""
COMPLETIONS = [(72, 105, 33, 258), (50, 258), (100, 101, 102, 103, 104, 105, 106)]


def loaded(**settings: object) -> SelfDistillation:
    """A module whose model is there, with weights large enough for teachers to disagree; no trainer needed."""
    module = tiny_module(**{"objective": GatedPolarity(**SENSITIVE), **settings})
    module.tokenizer = module.policy.load_tokenizer()
    module.loss_mask_rule = LossMaskRule(module.tokenizer, train_eos=True)
    module.configure_model()
    module.teacher_weights.prepare(module.model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.model.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module


def pool_of(module: SelfDistillation, outcomes: Sequence[int] = (1, -1, 1)) -> TeacherPool:
    rollouts = [
        tiny_rollout(problem, module.prompts.student(module.tokenizer, problem), completion)
        for problem, completion in zip(PROBLEMS, COMPLETIONS, strict=False)
    ]
    verdicts = [verdict(outcome) for outcome in outcomes]
    return build_teacher_pool(rollouts, verdicts, module.contexts, module.prompts, module.tokenizer)


def step_loss(module: SelfDistillation, pool: TeacherPool) -> Tensor:
    return module.objective(module.score(pool), pool.verdicts).loss


def plain_logits(module: SelfDistillation, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """[T, V]: one unpacked, unpadded forward pass through the model's own head."""
    ids = torch.tensor([[*prompt, *completion]])
    return module.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]


def definition_loss(module: SelfDistillation, pool: TeacherPool, support_top_k: int = -1) -> Tensor:
    """The reference over full logits, each sequence alone; one rollout at a time, so nothing is padded."""
    losses = []
    for row, rollout in enumerate(pool.rollouts):
        completion = rollout.completion_ids
        with torch.no_grad():
            teachers = torch.stack([plain_logits(module, prompt, completion) for prompt in pool.prompts[row]])
        student = plain_logits(module, rollout.prompt_ids, completion)
        losses.append(
            reference.gated_polarity_loss(
                student[None],
                teachers[None],
                torch.tensor([completion]),
                module.loss_mask_rule(rollout)[None],
                torch.tensor([pool.context_weights[row]], dtype=student.dtype),
                torch.tensor([float(pool.verdicts[row].outcome > 0)]),
                gate_temperature=SENSITIVE["gate_temperature"],
                log_ratio_clip=SENSITIVE["log_ratio_clip"],
                stance_threshold=SENSITIVE["stance_threshold"],
                support_top_k=support_top_k,
            ).loss
        )
    return torch.stack(losses).mean()


def gradient(module: SelfDistillation, loss: Tensor) -> Tensor:
    parameters = [parameter for parameter in module.model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


@pytest.mark.parametrize("support_top_k", [-1, 3])
def test_the_packed_chunked_closed_form_step_equals_the_definition_over_logits(support_top_k: int) -> None:
    module = loaded(objective=GatedPolarity(**SENSITIVE, support_top_k=support_top_k))
    pool = pool_of(module)
    loss, expected = step_loss(module, pool), definition_loss(module, pool, support_top_k)
    assert abs(expected.item()) > 1e-7, "the settings must make the loss sensitive"
    torch.testing.assert_close(loss, expected, rtol=2e-4, atol=1e-8)
    found, wanted = gradient(module, loss), gradient(module, expected)
    assert (found - wanted).norm() <= 1e-3 * wanted.norm()


@pytest.mark.parametrize("support_top_k", [-1, 3])
@pytest.mark.parametrize("implementation", ["reference", "triton", "cublas"])
def test_every_implementation_of_the_kernels_gives_the_same_loss_and_gradient(
    implementation: str, support_top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = loaded(objective=GatedPolarity(**SENSITIVE, support_top_k=support_top_k))
    pool = pool_of(module)
    expected = step_loss(module, pool)
    monkeypatch.setenv(IMPLEMENTATION_VARIABLE, implementation)
    loss = step_loss(module, pool)
    torch.testing.assert_close(loss, expected, rtol=2e-4, atol=1e-8)
    found, wanted = gradient(module, loss), gradient(module, expected)
    assert (found - wanted).norm() <= 1e-3 * wanted.norm()


def test_finite_differences_agree_with_the_step() -> None:
    """Teachers are frozen copies, so that moving the student moves nothing else."""
    module = loaded(teacher_weights=FrozenTeacher())
    module.double()
    pool = pool_of(module)
    analytic = gradient(module, step_loss(module, pool))
    direction = torch.randn(analytic.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    direction /= direction.norm()
    step = 1e-3  # scores are float32: a smaller step drowns in their rounding
    values = []
    for sign in (1, -1, 0):
        offset = 0
        with torch.no_grad():
            for parameter in module.model.parameters():
                moved = direction[offset : offset + parameter.numel()].view_as(parameter)
                parameter += {1: step, -1: -2 * step, 0: step}[sign] * moved
                offset += parameter.numel()
        values.append(step_loss(module, pool).item())
    numeric = (values[0] - values[1]) / (2 * step)
    assert numeric == pytest.approx((analytic @ direction).item(), rel=1e-2)


def test_loss_and_gradient_do_not_depend_on_packing_budget_or_order_of_contexts() -> None:
    module = loaded()
    pool = pool_of(module)
    loss = step_loss(module, pool)
    wanted = gradient(module, loss)
    reordered = TeacherPool(
        rollouts=pool.rollouts,
        verdicts=pool.verdicts,
        contexts=[list(reversed(row)) for row in pool.contexts],
        prompts=[list(reversed(row)) for row in pool.prompts],
        num_over_long=0,
    )
    for budget, other in ((1, pool), (150, pool), (16384, reordered)):
        module.scorer = Scorer(teacher_tokens_per_forward=budget)
        again = step_loss(module, other)
        torch.testing.assert_close(again, loss, rtol=1e-5, atol=1e-9)
        assert (gradient(module, again) - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_batch_gives_the_mean_of_its_rollouts_alone() -> None:
    module = loaded()
    pool = pool_of(module)
    alone = []
    for row in range(3):
        part = TeacherPool(
            rollouts=pool.rollouts[row : row + 1],
            verdicts=pool.verdicts[row : row + 1],
            contexts=pool.contexts[row : row + 1],
            prompts=pool.prompts[row : row + 1],
            num_over_long=0,
        )
        alone.append(step_loss(module, part))
    torch.testing.assert_close(torch.stack(alone).mean(), step_loss(module, pool), rtol=1e-5, atol=1e-9)


def test_the_student_runs_once_whatever_the_number_of_teachers() -> None:
    for num_contexts in (1, 5):
        module = loaded(contexts=NumberedContexts(num_contexts))
        passes: list[bool] = []

        def note(_: object, __: object, output: object, passes: list[bool] = passes) -> None:
            passes.append(output.last_hidden_state.requires_grad)  # type: ignore[attr-defined]

        module.model.get_decoder().register_forward_hook(note)
        step_loss(module, pool_of(module))
        assert passes.count(True) == 1


def test_an_outcome_reversed_reverses_the_gradient() -> None:
    module = loaded()
    plus = gradient(module, step_loss(module, pool_of(module, (1, 1, 1))))
    minus = gradient(module, step_loss(module, pool_of(module, (-1, -1, -1))))
    assert plus.norm() > 0
    torch.testing.assert_close(plus, -minus, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("case", ["no teachers", "no judgement", "all equal rewards"])
def test_a_batch_without_signal_gives_a_finite_loss_and_gradient(case: str) -> None:
    module = loaded(contexts=NumberedContexts(0)) if case == "no teachers" else loaded()
    outcomes = {"no teachers": (1, -1, 1), "no judgement": (0, 0, 0), "all equal rewards": (-1, -1, -1)}[case]
    pool = pool_of(module, outcomes)
    loss = step_loss(module, pool)
    found = gradient(module, loss)
    assert math.isfinite(loss.item())
    assert bool(found.isfinite().all())
    assert bool(found.any()) == (case == "all equal rewards")


def test_lora_trains_adapters_alone_and_a_frozen_teacher_reads_without_them() -> None:
    module = loaded(policy=tiny_policy(lora=LoraSettings(rank=2, alpha=4)), teacher_weights=FrozenTeacher())
    pool = pool_of(module)
    scores = module.score(pool)
    names = [name for name, parameter in module.model.named_parameters() if parameter.requires_grad]
    assert names
    assert all("lora" in name for name in names)
    with module.teacher_weights.activate(module.model) as teacher, torch.no_grad():
        expected = plain_logits(module, pool.prompts[0][0], pool.rollouts[0].completion_ids)
        assert teacher is module.model
    wanted = expected.log_softmax(-1).gather(-1, torch.tensor(pool.rollouts[0].completion_ids)[:, None])[:, 0]
    torch.testing.assert_close(scores.teacher_logprob[0, 0, : len(wanted)], wanted, rtol=1e-4, atol=1e-5)
