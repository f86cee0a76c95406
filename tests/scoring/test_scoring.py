"""The scorer against each model's own logits, one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from sgsd_kernels import Implementation
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.policy import FrozenTeacher, LiveTeacher, LoraSettings
from sgsd_lightning.policy.loading import checkpoint_activations
from sgsd_lightning.policy.lora import inject_lora
from sgsd_lightning.scoring import Scorer
from sgsd_lightning.types import Rollout, ScoreRequest, TokenScores
from tests.support.tiny import tiny_rollout
from tests.support.tiny_models import rows_of

MakeModel = Callable[..., PreTrainedModel]
MakeRollout = Callable[..., Rollout]
MakeIds = Callable[[int, int], tuple[int, ...]]
OwnLogprob = Callable[[PreTrainedModel, Sequence[int], Sequence[int]], Tensor]

EVERY_MODEL = [
    ("qwen3 tied", "sgsd_varlen"),
    ("qwen3 tied", "sdpa"),
    ("qwen3 tied", "eager"),
    ("qwen3 untied", "sgsd_varlen"),
    ("llama", "sgsd_varlen"),
    ("granite", "sgsd_varlen"),
    ("cohere", "sgsd_varlen"),
    ("gemma2", "sgsd_varlen"),
    ("gemma2", "eager"),
    ("gemma2 capped attention", "eager"),
]


class Batch:
    """Four rollouts with 3, 1, 0 and 2 contexts; the third completion is short, the fourth empty."""

    def __init__(self, make_rollout: MakeRollout, make_ids: MakeIds) -> None:
        lengths = [(5, 9), (2, 4), (7, 1), (3, 0)]
        self.rollouts = [make_rollout(*pair, seed=seed) for seed, pair in enumerate(lengths)]
        self.prompts = [
            [make_ids(8, 50), make_ids(3, 51), make_ids(12, 52)],
            [make_ids(6, 53)],
            [],
            [make_ids(2, 54), make_ids(2, 55)],
        ]
        self.weights = [[0.5, 0.3, 0.2], [1.0], [], [0.6, 0.4]]

    def score(
        self,
        model: PreTrainedModel,
        scorer: Scorer | None = None,
        request: ScoreRequest | None = None,
        teacher: LiveTeacher | FrozenTeacher | None = None,
    ) -> TokenScores:
        return (scorer or Scorer()).score(
            model,
            teacher or LiveTeacher(),
            rows_of(self.rollouts, self.prompts, self.weights),
            request or ScoreRequest(),
        )


@pytest.fixture
def batch(make_rollout: MakeRollout, make_ids: MakeIds) -> Batch:
    return Batch(make_rollout, make_ids)


@pytest.mark.parametrize(("name", "attention"), EVERY_MODEL)
def test_scores_equal_the_models_own_log_probabilities(
    name: str, attention: str, make_model: MakeModel, batch: Batch, own_logprob: OwnLogprob
) -> None:
    model = make_model(name, attention)
    scores = batch.score(model, Scorer(teacher_tokens_per_forward=25))
    for row, rollout in enumerate(batch.rollouts):
        length = len(rollout.completion_ids)
        expected = own_logprob(model, rollout.prompt_ids, rollout.completion_ids)
        torch.testing.assert_close(scores.student_logprob[row, :length].double(), expected, atol=1e-5, rtol=0)
        for column, prompt_ids in enumerate(batch.prompts[row]):
            expected = own_logprob(model, prompt_ids, rollout.completion_ids)
            actual = scores.teacher_logprob[row, column, :length].double()
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_what_is_padded_is_zero_and_masked(make_model: MakeModel, batch: Batch) -> None:
    scores = batch.score(make_model())
    assert scores.student_logprob.shape == (4, 9)
    assert scores.teacher_logprob.shape == (4, 3, 9)
    lengths = torch.tensor([9, 4, 1, 0])
    assert torch.equal(scores.completion_mask, torch.arange(9) < lengths[:, None])
    assert not scores.loss_mask[~scores.completion_mask].any()
    assert not scores.student_logprob[~scores.completion_mask].any()
    has_context = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)
    is_scored = has_context[..., None] & scores.completion_mask[:, None]
    assert torch.equal(scores.teacher_logprob != 0, is_scored)
    expected_weights = torch.tensor([[0.5, 0.3, 0.2], [1, 0, 0], [0, 0, 0], [0.6, 0.4, 0]])
    torch.testing.assert_close(scores.context_weight, expected_weights)
    assert scores.group.tolist() == [0, 1, 2, 3]
    assert not scores.step_index.any()


def test_entropies_are_those_of_the_models_own_distributions(
    make_model: MakeModel, batch: Batch, own_distributions: OwnLogprob
) -> None:
    model = make_model()
    scores = batch.score(model)
    assert scores.student_entropy is not None
    assert scores.teacher_entropy is not None
    assert not scores.student_entropy.requires_grad
    rows = own_distributions(model, batch.rollouts[0].prompt_ids, batch.rollouts[0].completion_ids)
    expected = -(rows.exp() * rows).sum(-1).float()
    torch.testing.assert_close(scores.student_entropy[0], expected, atol=1e-5, rtol=0)
    rows = own_distributions(model, batch.prompts[0][2], batch.rollouts[0].completion_ids)
    expected = -(rows.exp() * rows).sum(-1).float()
    torch.testing.assert_close(scores.teacher_entropy[0, 2], expected, atol=1e-5, rtol=0)
    assert batch.score(model, request=ScoreRequest(entropy=False)).student_entropy is None


@pytest.mark.parametrize(("name", "attention"), EVERY_MODEL)
def test_gradients_equal_those_of_full_logits(
    name: str, attention: str, make_model: MakeModel, batch: Batch, own_logprob: OwnLogprob
) -> None:
    model = make_model(name, attention)
    coefficient = torch.randn(4, 9)

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        loss.backward()
        return {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}

    actual = gradients((coefficient * batch.score(model).student_logprob).sum())
    rows = [own_logprob(model, r.prompt_ids, r.completion_ids) for r in batch.rollouts if r.completion_ids]
    terms = [(coefficient[index, : len(row)] * row).sum() for index, row in enumerate(rows)]
    expected = gradients(torch.stack(terms).sum())
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(actual[key], value, atol=2e-5 * max(1.0, scale), rtol=0)


def test_teachers_carry_no_gradient_and_the_student_does(make_model: MakeModel, batch: Batch) -> None:
    scores = batch.score(make_model())
    assert not scores.teacher_logprob.requires_grad
    assert scores.student_logprob.requires_grad


@pytest.mark.parametrize("attention", ["sgsd_varlen", "sdpa"])
@pytest.mark.parametrize("budget", [1, 20, 33, 10_000])
def test_the_teachers_budget_changes_nothing(attention: str, budget: int, make_model: MakeModel, batch: Batch) -> None:
    model = make_model(attention=attention)
    expected = batch.score(model).teacher_logprob
    actual = batch.score(model, Scorer(teacher_tokens_per_forward=budget)).teacher_logprob
    torch.testing.assert_close(actual, expected, atol=2e-6, rtol=0)


def test_the_teachers_budget_bounds_every_forward_pass(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    sizes: list[tuple[bool, int]] = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append((torch.is_grad_enabled(), kwargs["input_ids"].numel())),
        with_kwargs=True,
    )
    batch.score(model, Scorer(teacher_tokens_per_forward=21))
    # inputs of 16, 11, 20 and 9 tokens in passes of at most 21, then the student's 13 + 5 + 7 once
    assert sizes == [(False, 20), (False, 16), (False, 20), (True, 25)]


@pytest.mark.parametrize("attention", ["sgsd_varlen", "sdpa", "eager"])
def test_a_neighbour_changes_nothing(attention: str, make_model: MakeModel, batch: Batch, make_ids: MakeIds) -> None:
    model = make_model(attention=attention)
    before = batch.score(model)
    batch.rollouts[0] = tiny_rollout(batch.rollouts[0].problem, make_ids(30, 90), make_ids(9, 91))
    batch.prompts[0] = [make_ids(40, 92), make_ids(1, 93), make_ids(12, 94)]
    after = batch.score(model)
    torch.testing.assert_close(after.student_logprob[1:], before.student_logprob[1:], atol=2e-6, rtol=0)
    torch.testing.assert_close(after.teacher_logprob[1:], before.teacher_logprob[1:], atol=2e-6, rtol=0)
    assert (after.student_logprob[0] - before.student_logprob[0]).abs().max() > 0.1


def test_the_order_of_contexts_only_permutes_the_teachers(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    before = batch.score(model).teacher_logprob
    batch.prompts[0] = [batch.prompts[0][index] for index in (2, 0, 1)]
    after = batch.score(model).teacher_logprob
    torch.testing.assert_close(after[0], before[0, [2, 0, 1]], atol=2e-6, rtol=0)


@pytest.mark.parametrize("attention", ["sgsd_varlen", "sdpa"])
def test_the_order_of_rollouts_only_permutes_their_scores(attention: str, make_model: MakeModel, batch: Batch) -> None:
    model, order = make_model(attention=attention), [2, 3, 0, 1]
    before = batch.score(model)
    batch.rollouts = [batch.rollouts[row] for row in order]
    batch.prompts = [batch.prompts[row] for row in order]
    batch.weights = [batch.weights[row] for row in order]
    after = batch.score(model)
    torch.testing.assert_close(after.student_logprob, before.student_logprob[order], atol=2e-6, rtol=0)
    torch.testing.assert_close(after.teacher_logprob, before.teacher_logprob[order], atol=2e-6, rtol=0)


def test_the_implementation_of_the_head_changes_nothing(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    chunked = batch.score(model, Scorer(head_implementation="chunked"))
    reference = batch.score(model, Scorer(head_implementation="reference"))
    torch.testing.assert_close(chunked.student_logprob, reference.student_logprob, atol=2e-6, rtol=0)
    torch.testing.assert_close(chunked.teacher_logprob, reference.teacher_logprob, atol=2e-6, rtol=0)


def test_a_frozen_teacher_of_a_policy_with_adapters_is_its_base(
    make_model: MakeModel, batch: Batch, own_logprob: OwnLogprob
) -> None:
    base, model = make_model(), make_model()
    inject_lora(model, LoraSettings(rank=2, alpha=4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    scores = batch.score(model, teacher=FrozenTeacher())
    ids = batch.rollouts[0].completion_ids
    teacher, student = scores.teacher_logprob[0, 1].double(), scores.student_logprob[0].double()
    torch.testing.assert_close(teacher, own_logprob(base, batch.prompts[0][1], ids), atol=1e-5, rtol=0)
    prompt_ids = batch.rollouts[0].prompt_ids
    torch.testing.assert_close(student, own_logprob(model, prompt_ids, ids), atol=1e-5, rtol=0)
    assert (student - own_logprob(base, prompt_ids, ids)).abs().max() > 0.1
    student.sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("attention", ["sgsd_varlen", "sdpa"])
def test_gradient_checkpointing_changes_nothing(attention: str, make_model: MakeModel, batch: Batch) -> None:
    gradients = []
    for is_checkpointed in (False, True):
        model = make_model(attention=attention).train()
        if is_checkpointed:
            checkpoint_activations(model)
        batch.score(model).student_logprob.sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


def test_teachers_do_not_steal_the_students_gradient_under_autocast(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = batch.score(model)
    assert scores.student_logprob.dtype == torch.float32
    scores.student_logprob.sum().backward()
    projections = [value.grad for key, value in model.named_parameters() if key.endswith("proj.weight")]
    assert all(gradient is not None and gradient.any() for gradient in projections)


def test_autocast_gradients_are_close_to_those_in_float32(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    batch.score(model).student_logprob.sum().backward()
    expected = model.lm_head.weight.grad.clone()
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = batch.score(model)
    scores.student_logprob.sum().backward()
    assert (model.lm_head.weight.grad - expected).norm() < 0.05 * expected.norm()


def test_without_contexts_the_student_is_scored_alone(make_model: MakeModel, batch: Batch) -> None:
    batch.prompts, batch.weights = [[]] * 4, [[]] * 4
    scores = batch.score(make_model())
    assert scores.teacher_logprob.shape == (4, 0, 9)
    assert scores.context_weight.shape == (4, 0)
    assert scores.student_logprob.abs().sum() > 0


@pytest.mark.parametrize("support_top_k", [-1, 2])
@pytest.mark.parametrize("num_rollouts", [0, 2])
def test_with_nothing_to_score_every_parameter_still_gets_a_zero_gradient(
    num_rollouts: int, support_top_k: int, make_model: MakeModel, batch: Batch, make_rollout: MakeRollout
) -> None:
    model = make_model("qwen3 untied")
    batch.rollouts = [make_rollout(3, 0)] * num_rollouts
    batch.prompts, batch.weights = [[(5, 6)]] * num_rollouts, [[1.0]] * num_rollouts
    scores = batch.score(model, request=ScoreRequest(support_top_k=support_top_k))
    assert scores.student_logprob.shape == (num_rollouts, 0)
    scores.student_logprob.sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
@pytest.mark.parametrize("name", ["qwen3 tied", "gemma2"])
def test_the_local_support_is_the_teachers_top_k_and_the_sampled_token_renormalised(
    name: str, implementation: Implementation, make_model: MakeModel, batch: Batch, own_distributions: OwnLogprob
) -> None:
    model = make_model(name)
    top_k = 3
    scorer = Scorer(teacher_tokens_per_forward=30, head_implementation=implementation)
    support = batch.score(model, scorer, ScoreRequest(support_top_k=top_k)).support
    assert support is not None
    assert support.student_logprob.shape == support.teacher_logprob.shape == (4, 3, 9, top_k + 1)
    for row, rollout in enumerate(batch.rollouts[:2]):
        student = own_distributions(model, rollout.prompt_ids, rollout.completion_ids)
        for column, prompt_ids in enumerate(batch.prompts[row]):
            teacher = own_distributions(model, prompt_ids, rollout.completion_ids)
            for step, token_id in enumerate(rollout.completion_ids):
                ids = teacher[step].topk(top_k).indices.tolist()
                ids += [] if token_id in ids else [token_id]
                cell = (row, column, step)
                in_use = support.teacher_logprob[cell] > -torch.inf
                assert int(in_use.sum()) == len(ids)
                for values, rows in ((support.teacher_logprob, teacher), (support.student_logprob, student)):
                    expected = rows[step, ids].log_softmax(-1).float()
                    torch.testing.assert_close(
                        values[cell][in_use].sort().values, expected.sort().values, atol=1e-5, rtol=0
                    )
                    assert torch.isneginf(values[cell][~in_use]).all()
                    target = expected[ids.index(token_id)]
                    actual = values[cell][support.target_slot[cell]]
                    torch.testing.assert_close(actual, target, atol=1e-5, rtol=0)


def test_the_gradient_of_the_local_support_is_that_of_full_logits(
    make_model: MakeModel, batch: Batch, own_distributions: OwnLogprob
) -> None:
    model = make_model()
    batch.rollouts, batch.prompts, batch.weights = batch.rollouts[:1], batch.prompts[:1], batch.weights[:1]
    support = batch.score(model, request=ScoreRequest(support_top_k=2)).support
    assert support is not None
    support.student_logprob.gather(-1, support.target_slot[..., None]).sum().backward()
    actual = {key: value.grad.clone() for key, value in model.named_parameters()}
    model.zero_grad()
    rollout, total = batch.rollouts[0], torch.zeros((), dtype=torch.float64)
    student = own_distributions(model, rollout.prompt_ids, rollout.completion_ids)
    for prompt_ids in batch.prompts[0]:
        teacher = own_distributions(model, prompt_ids, rollout.completion_ids)
        for step, token_id in enumerate(rollout.completion_ids):
            ids = list({*teacher[step].topk(2).indices.tolist(), token_id})
            total = total + student[step, ids].log_softmax(-1)[ids.index(token_id)]
    total.backward()
    for key, value in model.named_parameters():
        torch.testing.assert_close(actual[key], value.grad, atol=5e-5 * max(1.0, value.grad.abs().max().item()), rtol=0)


def test_padded_supports_hold_one_certain_token(make_model: MakeModel, batch: Batch) -> None:
    support = batch.score(make_model(), request=ScoreRequest(support_top_k=2)).support
    assert support is not None
    for values in (support.teacher_logprob, support.student_logprob):
        assert values[2, 0, 0].tolist() == [0.0, -torch.inf, -torch.inf]
        assert values[1, 0, 7].tolist() == [0.0, -torch.inf, -torch.inf]


def test_weights_and_prompts_of_different_number_are_refused(make_model: MakeModel, batch: Batch) -> None:
    batch.weights[1] = [0.5, 0.5]
    with pytest.raises(ValueError, match="a row has 1 teachers but 2 context weights"):
        batch.score(make_model())


def test_a_budget_below_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="teacher_tokens_per_forward must be at least 1"):
        Scorer(teacher_tokens_per_forward=0)


def test_an_adapter_on_the_head_is_refused(make_model: MakeModel, batch: Batch) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = make_model("qwen3 untied")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["lm_head"]), model)
    with pytest.raises(ValueError, match=r"leave the head out of policy\.lora\.target_modules"):
        batch.score(model)
