"""The head loss from hidden states: what never goes through the head. `test_gate` has its numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sgsd_kernels import gated_polarity_head_loss
from sgsd_kernels.gate import head_loss as gated_head
from sgsd_kernels.head import reference
from sgsd_kernels.head.chunked import ChunkedPasses
from sgsd_kernels.head.passes import HeadRows, HeadSpan, Normalizer, RowStatistics, Upstream
from torch import Tensor

from tests.kernels.gate_cases import HEAD, IMPLEMENTATIONS, LEARNING, double

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SENSITIVE = {"stance_threshold": 1e-4, "gate_temperature": 2.0}


@pytest.mark.parametrize("implementation", ["chunked", "triton", "cublas"])
def test_bfloat16_hidden_states_lose_only_the_rounding_of_the_gradient(implementation: Any) -> None:
    inputs, upstream = HEAD.example([7, 12], 3), torch.randn(2)
    for name in (*LEARNING, "teacher_hidden"):
        inputs[name] = inputs[name].bfloat16()
    expected, _, wanted = HEAD.by_hand(inputs, upstream, **SENSITIVE)
    output, found = HEAD.run(inputs, upstream, **SENSITIVE, implementation=implementation)
    torch.testing.assert_close(output.rollout_loss.double(), expected, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - theirs).norm() <= 1e-2 * theirs.norm()


def test_finite_differences_agree_with_the_gradient() -> None:
    inputs = HEAD.example([4, 3], 2)
    inputs = double(inputs)
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
    inputs = HEAD.example([7, 5], 3)
    counts = inputs["loss_mask"]
    HEAD.run(inputs, torch.ones(2), **SENSITIVE)
    absent = counts[:7].sum().item()  # context 1 of rollout 0
    assert counted.scanned == [4 * counts.sum().item() - absent]
    assert counted.returned == [counts.sum().item()]


def test_rows_go_through_the_head_in_bounded_blocks_and_keep_their_bits(
    counted: type[CountedPasses], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 5 rows: within the student, across student and teachers, and a rest."""
    inputs = HEAD.example([7, 5], 3)
    inputs["loss_mask"][:3] = True
    whole, gradients = HEAD.run(inputs, torch.ones(2), **SENSITIVE, entropy=True)
    total = sum(counted.scanned)
    counted.scanned.clear()
    monkeypatch.setattr(gated_head, "SCAN_ROWS", 5)
    blocks, same = HEAD.run(inputs, torch.ones(2), **SENSITIVE, entropy=True)
    assert counted.scanned == [5] * (total // 5) + ([total % 5] if total % 5 else [])
    for ours, theirs in zip([blocks.rollout_loss, *same], [whole.rollout_loss, *gradients], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_neutral_rollout_costs_nothing_backward(counted: type[CountedPasses]) -> None:
    inputs = HEAD.example([7, 5], 3)
    inputs["outcome"] = torch.tensor([0.0, 1.0])
    _, found = HEAD.run(inputs, torch.ones(2), **SENSITIVE)
    assert counted.returned == [inputs["loss_mask"][7:].sum().item()]
    assert (found[0][:7] == 0).all()


def test_a_batch_without_polarity_has_exactly_zero_gradients_and_no_product(counted: type[CountedPasses]) -> None:
    inputs = HEAD.example([7, 5], 3)
    _, found = HEAD.run(inputs, torch.ones(2), stance_threshold=100.0)
    assert counted.returned == []
    assert all((gradient == 0).all() for gradient in found)


def test_a_frozen_head_gets_no_gradient() -> None:
    inputs = HEAD.example([7, 5], 3)
    inputs["student_hidden"].requires_grad_()
    gated_polarity_head_loss(**inputs).gate.rollout_loss.sum().backward()
    assert inputs["student_hidden"].grad is not None
    assert inputs["weight"].grad is None


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_entropies_and_logprobs_come_in_the_layout_of_the_tokens(implementation: Any) -> None:
    inputs = HEAD.example([4, 3], 2)
    output = gated_polarity_head_loss(**inputs, entropy=True, implementation=implementation)
    exact = double(inputs)
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


@pytest.mark.on_cpu
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
        gated_polarity_head_loss(**{**HEAD.example([4, 3], 2), **change})
