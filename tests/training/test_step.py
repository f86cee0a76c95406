"""The whole step: its loss and gradient against the definition over logits, finite differences, and every split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from sgsd_kernels.dispatch import IMPLEMENTATION_VARIABLE
from sgsd_kernels.gate import reference
from torch import Tensor

from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.policy import FrozenTeacher, LoraSettings
from sgsd_lightning.scoring import Scorer
from sgsd_lightning.types import Taught
from tests.support.tiny import PROBLEMS, NumberedContexts, judged, loaded_module, tiny_policy, tiny_rollout

SENSITIVE = {"gate_temperature": 0.5, "log_ratio_clip": 0.02, "stance_threshold": 1e-6}
"""Settings under which a random model's tiny log-ratios matter."""
COMPLETIONS = [(72, 105, 33, 258), (50, 258), (100, 101, 102, 103, 104, 105, 106)]


def loaded(**settings: object) -> SelfDistillation:
    """A module whose model is there, with weights large enough for teachers to disagree; no trainer needed."""
    module = loaded_module(**{"objective": GatedPolarity(**SENSITIVE), **settings})
    module.teacher_weights.prepare(module.model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.model.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module


def taught_by(module: SelfDistillation, outcomes: Sequence[int] = (1, -1, 1)) -> Taught:
    learner = module.learner
    own = [
        judged(tiny_rollout(problem, learner.prompts.student(learner.tokenizer, problem), completion), outcome)
        for problem, completion, outcome in zip(PROBLEMS, COMPLETIONS, outcomes, strict=False)
    ]
    return learner.teach(own, {learner.name: own})


def step_loss(module: SelfDistillation, taught: Taught) -> Tensor:
    learner = module.learner
    return learner.objective(learner.score(taught), [entry.verdict for entry in taught.scored]).loss


def part_of(taught: Taught, row: int) -> Taught:
    """One rollout of a micro-batch alone."""
    rows = slice(row, row + 1)
    return replace(taught, sampled=taught.sampled[rows], contexts=taught.contexts[rows], rows=taught.rows[rows])


def plain_logits(module: SelfDistillation, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """[T, V]: one unpacked, unpadded forward pass through the model's own head."""
    ids = torch.tensor([[*prompt, *completion]])
    return module.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]


def definition_loss(module: SelfDistillation, taught: Taught, support_top_k: int = -1) -> Tensor:
    """The reference over full logits, each sequence alone; one rollout at a time, so nothing is padded."""
    losses, learner = [], module.learner
    for entry, contexts in zip(taught.scored, taught.contexts, strict=True):
        rollout = entry.rollout
        completion = rollout.completion_ids
        prompts = [learner.prompts.teacher(learner.tokenizer, rollout.problem, context) for context in contexts]
        with torch.no_grad():
            teachers = torch.stack([plain_logits(module, prompt, completion) for prompt in prompts])
        student = plain_logits(module, rollout.prompt_ids, completion)
        losses.append(
            reference.gated_polarity_loss(
                student[None],
                teachers[None],
                torch.tensor([completion]),
                learner.loss_mask_rule(rollout.turns[0].completion)[None],
                torch.tensor([[context.weight for context in contexts]], dtype=student.dtype),
                torch.tensor([float(entry.verdict.outcome > 0)]),
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
    taught = taught_by(module)
    loss, expected = step_loss(module, taught), definition_loss(module, taught, support_top_k)
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
    taught = taught_by(module)
    expected = step_loss(module, taught)
    monkeypatch.setenv(IMPLEMENTATION_VARIABLE, implementation)
    loss = step_loss(module, taught)
    torch.testing.assert_close(loss, expected, rtol=2e-4, atol=1e-8)
    found, wanted = gradient(module, loss), gradient(module, expected)
    assert (found - wanted).norm() <= 1e-3 * wanted.norm()


def test_finite_differences_agree_with_the_step() -> None:
    """Teachers are frozen copies, so that moving the student moves nothing else."""
    module = loaded(teacher_weights=FrozenTeacher())
    module.double()
    taught = taught_by(module)
    analytic = gradient(module, step_loss(module, taught))
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
        values.append(step_loss(module, taught).item())
    numeric = (values[0] - values[1]) / (2 * step)
    assert numeric == pytest.approx((analytic @ direction).item(), rel=1e-2)


def test_loss_and_gradient_do_not_depend_on_packing_budget_or_order_of_contexts() -> None:
    module = loaded()
    taught = taught_by(module)
    loss = step_loss(module, taught)
    wanted = gradient(module, loss)
    learner = module.learner
    reordered = learner.render(taught.sampled, [list(reversed(contexts)) for contexts in taught.contexts])
    assert reordered.rows[0].teachers == tuple(reversed(taught.rows[0].teachers))
    for budget, other in ((1, taught), (150, taught), (16384, reordered)):
        learner.scorer = Scorer(teacher_tokens_per_forward=budget)
        again = step_loss(module, other)
        torch.testing.assert_close(again, loss, rtol=1e-5, atol=1e-9)
        assert (gradient(module, again) - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_batch_gives_the_mean_of_its_rollouts_alone() -> None:
    module = loaded()
    taught = taught_by(module)
    alone = []
    for row in range(3):
        alone.append(step_loss(module, part_of(taught, row)))
    torch.testing.assert_close(torch.stack(alone).mean(), step_loss(module, taught), rtol=1e-5, atol=1e-9)


def test_the_student_runs_once_whatever_the_number_of_teachers() -> None:
    for num_contexts in (1, 5):
        module = loaded(contexts=NumberedContexts(num_contexts))
        passes: list[bool] = []

        def note(_: object, __: object, output: object, passes: list[bool] = passes) -> None:
            passes.append(output.last_hidden_state.requires_grad)  # type: ignore[attr-defined]

        module.model.get_decoder().register_forward_hook(note)
        step_loss(module, taught_by(module))
        assert passes.count(True) == 1


def test_an_outcome_reversed_reverses_the_gradient() -> None:
    module = loaded()
    plus = gradient(module, step_loss(module, taught_by(module, (1, 1, 1))))
    minus = gradient(module, step_loss(module, taught_by(module, (-1, -1, -1))))
    assert plus.norm() > 0
    torch.testing.assert_close(plus, -minus, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("case", ["no teachers", "no judgement", "all equal rewards"])
def test_a_batch_without_signal_gives_a_finite_loss_and_gradient(case: str) -> None:
    module = loaded(contexts=NumberedContexts(0)) if case == "no teachers" else loaded()
    outcomes = {"no teachers": (1, -1, 1), "no judgement": (0, 0, 0), "all equal rewards": (-1, -1, -1)}[case]
    taught = taught_by(module, outcomes)
    loss = step_loss(module, taught)
    found = gradient(module, loss)
    assert math.isfinite(loss.item())
    assert bool(found.isfinite().all())
    assert bool(found.any()) == (case == "all equal rewards")


def test_lora_trains_adapters_alone_and_a_frozen_teacher_reads_without_them() -> None:
    module = loaded(policy=tiny_policy(lora=LoraSettings(rank=2, alpha=4)), teacher_weights=FrozenTeacher())
    taught = taught_by(module)
    scores = module.learner.score(taught)
    names = [name for name, parameter in module.model.named_parameters() if parameter.requires_grad]
    assert names
    assert all("lora" in name for name in names)
    with module.teacher_weights.activate(module.model) as teacher, torch.no_grad():
        rollout, learner = taught.sampled[0].rollout, module.learner
        prompt = learner.prompts.teacher(learner.tokenizer, rollout.problem, taught.contexts[0][0])
        expected = plain_logits(module, prompt, rollout.completion_ids)
        assert teacher is module.model
    wanted = expected.log_softmax(-1).gather(-1, torch.tensor(rollout.completion_ids)[:, None])[:, 0]
    torch.testing.assert_close(scores.teacher_logprob[0, 0, : len(wanted)], wanted, rtol=1e-4, atol=1e-5)
