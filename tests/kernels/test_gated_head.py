"""The head loss from hidden states: every implementation against whole float64 logits, and what is never computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sgsd_kernels import gated_polarity_head_loss
from sgsd_kernels.gate import head_loss as gated_head
from sgsd_kernels.gate.reference import gated_polarity_loss
from sgsd_kernels.head import reference
from sgsd_kernels.head.chunked import ChunkedPasses
from sgsd_kernels.head.passes import HeadRows, HeadSpan, Normalizer, RowStatistics, Upstream
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

LEARNING = ("student_hidden", "weight", "bias")
IMPLEMENTATIONS = ["reference", "chunked", "triton", "cublas"]
SENSITIVE = {"stance_threshold": 1e-4, "gate_temperature": 2.0}


def example(
    lengths: list[int], num_contexts: int, width: int = 16, vocab_size: int = 50, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Teachers near the student, so that the gate is open; masked tokens, and a context that is not there."""
    total = sum(lengths)
    student = torch.randn(total, width)
    weight = torch.rand(len(lengths), num_contexts) + 0.1
    if num_contexts > 1:
        weight[0, 1] = 0
    return {
        "student_hidden": student.to(dtype),
        "teacher_hidden": (student + 0.3 * torch.randn(num_contexts, total, width)).to(dtype),
        "weight": (torch.randn(vocab_size, width) * 0.5).to(dtype),
        "bias": torch.randn(vocab_size).to(dtype),
        "targets": torch.randint(vocab_size, (total,)),
        "loss_mask": torch.rand(total) > 0.25,
        "rollout_offsets": torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]),
        "context_weight": weight,
        "outcome": torch.tensor([1.0, -1.0]).repeat(len(lengths))[: len(lengths)],
    }


def run(inputs: dict[str, Any], upstream: Tensor, **options: Any) -> tuple[Any, list[Tensor]]:
    leaves = {name: inputs[name].clone().requires_grad_() for name in LEARNING}
    output = gated_polarity_head_loss(**{**inputs, **leaves}, **options)
    loss = (output.gate.rollout_loss * upstream.to(output.gate.rollout_loss.dtype)).sum()
    return output, list(torch.autograd.grad(loss, list(leaves.values())))


def definition(inputs: dict[str, Any], upstream: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
    """Each rollout alone through whole float64 logits and the authors' loss; gradients by autograd."""
    exact = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    leaves = [exact[name].requires_grad_() for name in LEARNING]
    gate = {"gate_temperature": 1.0, "log_ratio_clip": 3.0, "stance_threshold": 0.05}
    gate = {name: options.pop(name, value) for name, value in gate.items()}
    bounds = inputs["rollout_offsets"].tolist()
    losses = []
    for row in range(len(bounds) - 1):
        tokens = slice(bounds[row], bounds[row + 1])
        student = reference.head_logits(exact["student_hidden"][tokens], exact["weight"], bias=exact["bias"], **options)
        with torch.no_grad():
            teachers = torch.stack(
                [
                    reference.head_logits(hidden, exact["weight"], bias=exact["bias"], **options)
                    for hidden in exact["teacher_hidden"][:, tokens]
                ]
            )
        losses.append(
            gated_polarity_loss(
                student[None],
                teachers[None],
                inputs["targets"][None, tokens],
                inputs["loss_mask"][None, tokens],
                exact["context_weight"][row : row + 1],
                inputs["outcome"][row : row + 1],
                support_top_k=-1,
                **gate,
            ).loss
        )
    rollout_loss = torch.stack(losses)
    return rollout_loss, list(torch.autograd.grad((rollout_loss * upstream).sum(), leaves))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "softcap": 6.0}])
@pytest.mark.parametrize(("lengths", "num_contexts"), [([5], 1), ([7, 0, 3], 3), ([4, 9], 8)])
def test_loss_and_gradients_equal_whole_float64_logits(
    lengths: list[int], num_contexts: int, options: dict[str, Any], implementation: Any
) -> None:
    inputs, upstream = example(lengths, num_contexts), torch.randn(len(lengths))
    expected, wanted = definition(inputs, upstream, **options, **SENSITIVE)
    assert expected.abs().max() > 1e-4
    output, found = run(inputs, upstream, **options, **SENSITIVE, implementation=implementation)
    torch.testing.assert_close(output.gate.rollout_loss.double(), expected, rtol=1e-4, atol=1e-7)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.double() - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.parametrize("implementation", ["chunked", "triton", "cublas"])
def test_bfloat16_hidden_states_lose_only_the_rounding_of_the_gradient(implementation: Any) -> None:
    inputs, upstream = example([7, 12], 3, dtype=torch.bfloat16), torch.randn(2)
    expected, wanted = definition(inputs, upstream, **SENSITIVE)
    output, found = run(inputs, upstream, **SENSITIVE, implementation=implementation)
    torch.testing.assert_close(output.gate.rollout_loss.double(), expected, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - theirs).norm() <= 1e-2 * theirs.norm()


def test_finite_differences_agree_with_the_gradient() -> None:
    inputs = example([4, 3], 2, width=5, vocab_size=9)
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    leaves = [inputs.pop(name).requires_grad_() for name in LEARNING]

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # teachers read fixed copies: their own dependence on the head is not part of the gradient
        teachers = reference.linear_logprob(
            inputs["teacher_hidden"].flatten(0, 1),
            leaves[1].detach(),
            inputs["targets"].repeat(2),
            bias=leaves[2].detach(),
        ).logprob.view(2, -1)
        student = reference.linear_logprob(hidden, weight, inputs["targets"], bias=bias).logprob
        batch = gated_head._Batch(
            *(inputs[name] for name in ("targets", "loss_mask", "rollout_offsets", "context_weight", "outcome"))
        )
        settings = gated_head.GateSettings(**SENSITIVE)
        return batch.judge(student, teachers, settings, "reference").rollout_loss

    arguments = {name: inputs[name] for name in inputs}
    output = gated_polarity_head_loss(leaves[0], weight=leaves[1], bias=leaves[2], **arguments, **SENSITIVE)
    analytic = torch.autograd.grad(output.gate.rollout_loss.sum(), leaves)
    step = 1e-6
    for index, gradient in enumerate(analytic):
        direction = torch.randn_like(gradient)
        moved = [
            [leaf.detach() + (sign * step * direction if place == index else 0) for place, leaf in enumerate(leaves)]
            for sign in (1, -1)
        ]
        numeric = (loss(*moved[0]).sum() - loss(*moved[1]).sum()) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-9)


class CountedPasses(ChunkedPasses):
    """The chunked passes, with a list of how many rows went through the head each time."""

    __slots__ = ()
    scanned: list[int] = []  # noqa: RUF012
    returned: list[int] = []  # noqa: RUF012

    def scan(self, rows: HeadRows, *, entropy: bool) -> RowStatistics:
        self.scanned.append(rows.num_rows)
        return super().scan(rows, entropy=entropy)

    def dlogits(self, rows: HeadRows, span: HeadSpan, normalizer: Normalizer, upstream: Upstream) -> Tensor:
        self.returned.append(rows.num_rows)
        return super().dlogits(rows, span, normalizer, upstream)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountedPasses]:
    CountedPasses.scanned, CountedPasses.returned = [], []
    monkeypatch.setattr(gated_head, "passes_for", lambda *_: CountedPasses())
    return CountedPasses


def test_only_rows_that_count_go_through_the_head_and_all_at_once(counted: type[CountedPasses]) -> None:
    inputs = example([7, 5], 3)
    counts = inputs["loss_mask"]
    run(inputs, torch.ones(2), **SENSITIVE)
    absent = counts[:7].sum().item()  # context 1 of rollout 0
    assert counted.scanned == [4 * counts.sum().item() - absent]
    assert counted.returned == [counts.sum().item()]


def test_a_neutral_rollout_costs_nothing_backward(counted: type[CountedPasses]) -> None:
    inputs = example([7, 5], 3)
    inputs["outcome"] = torch.tensor([0.0, 1.0])
    _, found = run(inputs, torch.ones(2), **SENSITIVE)
    assert counted.returned == [inputs["loss_mask"][7:].sum().item()]
    assert (found[0][:7] == 0).all()


def test_a_batch_without_polarity_has_exactly_zero_gradients_and_no_product(counted: type[CountedPasses]) -> None:
    inputs = example([7, 5], 3)
    _, found = run(inputs, torch.ones(2), stance_threshold=100.0)
    assert counted.returned == []
    assert all((gradient == 0).all() for gradient in found)


def test_what_does_not_count_may_be_anything() -> None:
    inputs = example([7, 5], 3)
    dirty = {name: value.clone() for name, value in inputs.items()}
    dirty["student_hidden"][~inputs["loss_mask"]] = torch.nan
    dirty["teacher_hidden"][:, ~inputs["loss_mask"]] = torch.nan
    dirty["teacher_hidden"][1, :7] = torch.nan
    dirty["targets"][~inputs["loss_mask"]] = -1
    expected, wanted = run(inputs, torch.ones(2))
    output, found = run(dirty, torch.ones(2))
    assert torch.equal(output.gate.rollout_loss, expected.gate.rollout_loss)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))


def test_a_frozen_head_gets_no_gradient() -> None:
    inputs = example([7, 5], 3)
    inputs["student_hidden"].requires_grad_()
    gated_polarity_head_loss(**inputs).gate.rollout_loss.sum().backward()
    assert inputs["student_hidden"].grad is not None
    assert inputs["weight"].grad is None


def test_a_second_derivative_is_refused() -> None:
    inputs = example([7, 5], 3)
    hidden = inputs["student_hidden"].requires_grad_()
    loss = gated_polarity_head_loss(**inputs).gate.rollout_loss.sum()
    with pytest.raises(RuntimeError, match="gated_polarity_head_loss has no second derivative"):
        torch.autograd.grad(loss, hidden, create_graph=True)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_entropies_and_logprobs_come_in_the_layout_of_the_tokens(implementation: Any) -> None:
    inputs = example([4, 3], 2)
    output = gated_polarity_head_loss(**inputs, entropy=True, implementation=implementation)
    exact = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    whole = reference.linear_logprob(
        exact["teacher_hidden"].flatten(0, 1),
        exact["weight"],
        exact["targets"].repeat(2),
        bias=exact["bias"],
        entropy=True,
    )
    counts = inputs["loss_mask"].expand(2, -1).clone()
    counts[1, :4] = False
    for ours, theirs in ((output.teacher_logprob, whole.logprob), (output.teacher_entropy, whole.entropy)):
        expected = theirs.view(2, -1).where(counts, 0.0)
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=5e-6)
    assert (output.student_entropy[inputs["loss_mask"]] > 0).all()
    assert (output.student_entropy[~inputs["loss_mask"]] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_hidden": torch.zeros(2, 7, 9)}, r"teacher_hidden must be \[K, M, D\].*D = 16; got \[2, 7, 9\]"),
        ({"teacher_hidden": torch.zeros(2, 6, 16)}, r"teachers' \[K, M\] with loss_mask's M = 7"),
        (
            {"teacher_hidden": torch.zeros(2, 7, 16).half()},
            r"student_hidden's dtype torch\.float32.*got torch\.float16",
        ),
        ({"weight": torch.zeros(50, 9)}, r"with the same D; got \[7, 16\] and \[50, 9\]"),
        ({"targets": torch.full((7,), 50)}, r"targets must be token ids in \[0, 50\)"),
        ({"rollout_offsets": torch.tensor([0, 4, 6])}, "must rise from 0 to M = 7"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"log_ratio_clip": -1.0}, "log_ratio_clip must be above 0"),
        ({"implementation": "fast"}, "must be one of auto, reference, chunked, triton, cublas; got 'fast'"),
    ],
)
def test_bad_input_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gated_polarity_head_loss(**{**example([4, 3], 2), **change})
