"""The local support against whole float64 distributions, and its gradient against autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sgsd_kernels import gated_support, support_logprob, teacher_support
from sgsd_kernels.gate.reference import gated_polarity_loss
from sgsd_kernels.head.reference import head_logits
from sgsd_kernels.support.passes import ranking_keys
from torch import Tensor

from tests.support.pairwise import Apart, grid

OPTIONS: list[dict[str, Any]] = [{}, {"temperature": 0.7, "softcap": 4.0}, {"vocab_limit": 29}]


def head(num_rows: int, width: int, vocab_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """hidden, weight, bias in float64."""
    make = {"dtype": torch.float64}
    return torch.randn(num_rows, width, **make), torch.randn(vocab_size, width, **make), torch.randn(vocab_size, **make)


@grid({"options": OPTIONS, "vocab_size": [33, 129], "top_k": [1, 5, 32], "num_rows": [Apart(0), 1, 17]})
def test_the_support_is_the_top_k_and_the_target_renormalised(
    num_rows: int, top_k: int, vocab_size: int, options: dict[str, Any]
) -> None:
    hidden, weight, bias = head(num_rows, 8, vocab_size)
    targets = torch.randint(29, (num_rows,))
    support = teacher_support(hidden, weight, targets, top_k, bias=bias, row_chunk=4, vocab_chunk=10, **options)
    logits = head_logits(hidden, weight, bias=bias, **options)
    assert support.ids.shape == support.logprob.shape == support.mask.shape == (num_rows, top_k + 1)
    for row in range(num_rows):
        expected = set(logits[row].topk(min(top_k, logits.shape[1])).indices.tolist()) | {int(targets[row])}
        ids = support.ids[row][support.mask[row]]
        assert sorted(ids.tolist()) == sorted(expected)
        assert support.ids[row, support.target_slot[row]] == targets[row]
        torch.testing.assert_close(support.logprob[row][support.mask[row]], logits[row, ids].log_softmax(-1))
        assert (support.logprob[row][~support.mask[row]] == -torch.inf).all()


def test_ties_go_to_the_lowest_id_whatever_the_chunks() -> None:
    weight = torch.tensor([[0.0], [1.0], [-0.0], [1.0], [1.0], [0.0], [1.0], [-1.0]])
    hidden = torch.ones(1, 1)
    for vocab_chunk in (1, 2, 3, 8):
        support = teacher_support(hidden, weight, torch.tensor([7]), 6, vocab_chunk=vocab_chunk)
        assert support.ids[0].tolist() == [1, 3, 4, 6, 0, 2, 7]


def test_ranking_keys_order_floats_of_every_kind_and_then_columns() -> None:
    values = [3.4e38, 1e-45, 1.0, 0.0, -0.0, 0.0, -1e-45, -torch.inf, -1.0, torch.inf, 1.0, -3.4e38]
    keys = ranking_keys(torch.tensor([values]), torch.arange(len(values)))[0].tolist()
    assert len(set(keys)) == len(keys)
    by_key = sorted(range(len(values)), key=lambda column: -keys[column])
    assert by_key == sorted(range(len(values)), key=lambda column: (-values[column], column))


def test_negative_logits_are_ranked_by_value() -> None:
    weight = torch.tensor([[-3.0], [-1e4], [-0.5], [2.0], [-0.25]])
    support = teacher_support(torch.ones(1, 1), weight, torch.tensor([1]), 4, vocab_chunk=2)
    assert support.ids[0].tolist() == [3, 4, 2, 0, 1]


def test_a_support_wider_than_the_vocabulary_leaves_slots_unused() -> None:
    hidden, weight, _ = head(3, 8, 5)
    support = teacher_support(hidden, weight, torch.tensor([0, 4, 2]), 9)
    assert support.mask.sum(-1).tolist() == [5, 5, 5]
    torch.testing.assert_close(support.logprob.exp().sum(-1), torch.ones(3, dtype=torch.float64))


def test_removed_columns_are_not_in_the_support() -> None:
    hidden, weight, bias = head(2, 8, 6)
    bias[1:5] = -torch.inf
    support = teacher_support(hidden, weight, torch.tensor([0, 5]), 4, bias=bias)
    assert [sorted(ids[mask].tolist()) for ids, mask in zip(support.ids, support.mask, strict=True)] == [[0, 5]] * 2


def test_ignored_rows_have_an_empty_support() -> None:
    hidden, weight, _ = head(3, 8, 33)
    hidden[1] = torch.nan
    support = teacher_support(hidden, weight, torch.tensor([3, -100, 4]), 5)
    assert not support.mask[1].any()
    assert support.target_slot[1] == 0
    assert support.mask[[0, 2]].any(dim=-1).all()


@pytest.mark.parametrize("gather_limit", [1, 8 * 6 * 5, 10**6])
@pytest.mark.parametrize("options", OPTIONS)
def test_student_logprobs_and_gradients_equal_whole_logits(options: dict[str, Any], gather_limit: int) -> None:
    inputs = [tensor.requires_grad_() for tensor in head(7, 8, 33)]
    ids = torch.stack([torch.randperm(29)[:6] for _ in range(21)]).reshape(7, 3, 6)
    mask = torch.rand(7, 3, 6) < 0.7
    mask[0] = False
    upstream = torch.randn(7, 3, 6, dtype=torch.float64)
    upstream[2, 1] = 0
    hidden, weight, bias = inputs
    actual = support_logprob(hidden, weight, ids, mask, bias=bias, gather_limit=gather_limit, **options)
    logits = head_logits(hidden, weight, bias=bias, **options).unsqueeze(1).expand(-1, 3, -1).gather(-1, ids)
    lse = logits.masked_fill(~mask, -1e30).logsumexp(-1, keepdim=True)
    assert (actual[~mask] == -torch.inf).all()
    torch.testing.assert_close(actual[mask], (logits - lse)[mask])
    theirs = torch.autograd.grad((logits - lse)[mask] @ upstream[mask], inputs)
    for ours, expected in zip(torch.autograd.grad(actual[mask] @ upstream[mask], inputs), theirs, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_finite_differences_agree_with_the_gradient_of_the_support() -> None:
    inputs = [tensor.requires_grad_() for tensor in head(3, 4, 9)]
    ids, mask = torch.randint(9, (3, 2, 4)), torch.ones(3, 2, 4, dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda hidden, weight, bias: support_logprob(hidden, weight, ids, mask, bias=bias, softcap=3.0), inputs
    )


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight, _ = head(3, 4, 9)
    ids, mask = torch.randint(9, (3, 2, 4)), torch.ones(3, 2, 4, dtype=torch.bool)
    support_logprob(hidden.requires_grad_(), weight, ids, mask)[..., 0].sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_bfloat16_inputs_lose_nothing_but_float32_rounding() -> None:
    hidden, weight, _ = (tensor.bfloat16() for tensor in head(17, 40, 129))
    targets = torch.randint(129, (17,))
    actual = teacher_support(hidden, weight, targets, 8)
    expected = teacher_support(hidden.double(), weight.double(), targets, 8)
    assert torch.equal(actual.ids, expected.ids)
    torch.testing.assert_close(actual.logprob.double(), expected.logprob, rtol=0, atol=1e-5)
    student = support_logprob(hidden, weight, actual.ids.unsqueeze(1), actual.mask.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(student, actual.logprob, rtol=0, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 4])
def test_from_hidden_states_to_loss_it_equals_the_reference(top_k: int) -> None:
    """Teacher support, student support and gate in a row, against whole logits and autograd."""
    num_rollouts, num_contexts, length, width, vocab_size = 3, 2, 5, 8, 33
    shape = (num_rollouts, num_contexts, length)
    hidden, weight, _ = head(num_rollouts * length, width, vocab_size)
    hidden.requires_grad_()
    teacher_hidden = torch.randn(*shape, width, dtype=torch.float64)
    targets = torch.randint(1, vocab_size, (num_rollouts, length))
    loss_mask = torch.rand(num_rollouts, length) < 0.8
    weights, rewards = torch.rand(num_rollouts, num_contexts), torch.tensor([1.0, 0.0, 1.0])
    teacher_targets = targets.unsqueeze(1).expand(shape).flatten()
    support = teacher_support(teacher_hidden.flatten(0, 2), weight, teacher_targets, top_k, vocab_chunk=7)

    def by_row(values: Tensor) -> Tensor:  # [B * K * T, S] -> [B * T, K, S]
        return values.reshape(*shape, -1).transpose(1, 2).flatten(0, 1)

    student = support_logprob(hidden, weight, by_row(support.ids), by_row(support.mask))
    student = student.reshape(num_rollouts, length, num_contexts, -1).transpose(1, 2)
    output = gated_support(
        student,
        support.logprob.reshape(*shape, -1),
        support.target_slot.reshape(shape),
        loss_mask,
        weights,
        torch.where(rewards > 0, 1, -1),
    )
    expected = gated_polarity_loss(
        (hidden @ weight.T).reshape(num_rollouts, length, -1),
        teacher_hidden @ weight.T,
        targets,
        loss_mask,
        weights,
        rewards,
        gate_temperature=1.0,
        log_ratio_clip=3.0,
        stance_threshold=0.05,
        support_top_k=top_k,
    )
    loss = output.rollout_loss.mean()
    torch.testing.assert_close(loss, expected.loss)
    torch.testing.assert_close(output.stance_score, expected.stance_score)
    assert torch.equal(output.polarity, expected.polarity)
    (actual_gradient,) = torch.autograd.grad(loss, hidden)
    (expected_gradient,) = torch.autograd.grad(expected.loss, hidden)
    torch.testing.assert_close(actual_gradient, expected_gradient, rtol=1e-9, atol=1e-12)


def gate_example() -> dict[str, Tensor]:
    """Two rollouts, three contexts, five tokens, supports of four slots of which the last is sometimes unused."""
    unused = torch.rand(2, 3, 5) < 0.5
    teacher, student = torch.randn(2, 2, 3, 5, 4, dtype=torch.float64)
    teacher[..., 3].masked_fill_(unused, -torch.inf)
    student[..., 3].masked_fill_(unused, -torch.inf)
    return {
        "student_logprob": student.log_softmax(-1),
        "teacher_logprob": teacher.log_softmax(-1),
        "target_slot": torch.randint(3, (2, 3, 5)),
        "loss_mask": torch.rand(2, 5) < 0.7,
        "context_weight": torch.rand(2, 3, dtype=torch.float64),
        "outcome": torch.tensor([1, -1]),
    }


def test_divergence_and_size_of_the_support_are_masked_means() -> None:
    inputs = gate_example()
    output = gated_support(**inputs)
    size, divergence = torch.zeros(2, 3), torch.zeros(2, 3)
    for b, k, t in inputs["loss_mask"].unsqueeze(1).expand(2, 3, 5).nonzero().tolist():
        teacher, student = inputs["teacher_logprob"][b, k, t], inputs["student_logprob"][b, k, t]
        used = teacher.isfinite()
        size[b, k] += used.sum()
        divergence[b, k] += (teacher.exp() * (teacher - student))[used].sum()
    num_tokens = inputs["loss_mask"].sum(-1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(output.support_size.float(), size / num_tokens)
    torch.testing.assert_close(output.support_divergence.float(), divergence / num_tokens)


def test_poison_outside_the_mask_and_the_support_does_not_leak() -> None:
    inputs = gate_example()
    inputs["context_weight"][1, 1] = 0
    clean = gated_support(**inputs)
    dirty = {name: value.clone() for name, value in inputs.items()}
    for name in ("student_logprob", "teacher_logprob"):
        dirty[name].transpose(1, 2)[~inputs["loss_mask"]] = torch.nan
        dirty[name][1, 1] = torch.nan
    dirty["student_logprob"][inputs["teacher_logprob"] == -torch.inf] = torch.nan
    dirty["target_slot"].transpose(1, 2)[~inputs["loss_mask"]] = 99
    student = dirty["student_logprob"].requires_grad_()
    output = gated_support(**dirty)
    output.rollout_loss.sum().backward()
    assert torch.equal(output.rollout_loss, clean.rollout_loss)
    assert torch.equal(output.token_coefficient, clean.token_coefficient)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate_temperature": -1.0}, "gate_temperature must be above 0"),
        ({"target_slot": torch.zeros(2, 3, 4, dtype=torch.int64)}, r"target_slot \[B, K, T\]; got"),
        ({"loss_mask": torch.ones(2, 6, dtype=torch.bool)}, r"begin with \[B, K, T\] = \[2, 3, 6\]"),
    ],
)
def test_the_gate_refuses_bad_settings_and_shapes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gated_support(**{**gate_example(), **change})


def test_bad_supports_are_refused_by_name() -> None:
    hidden, weight, _ = head(3, 4, 9)
    with pytest.raises(ValueError, match="support_top_k must be at least 1"):
        teacher_support(hidden, weight, torch.tensor([0, 1, 2]), 0)
    with pytest.raises(ValueError, match=r"targets must be token ids in \[0, 9\)"):
        teacher_support(hidden, weight, torch.tensor([0, 1, 9]), 2)
    ids, mask = torch.full((3, 1, 2), 9), torch.ones(3, 1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"ids must be token ids in \[0, 9\); got 9 to 9"):
        support_logprob(hidden, weight, ids, mask)
    with pytest.raises(ValueError, match=r"ids and mask must be \[N, K, S\] with hidden's N = 3"):
        support_logprob(hidden, weight, ids[:2], mask[:2])
