"""The divergence against its definition in float64, and the definition against formulas written down anew."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sgsd_kernels import linear_divergence
from sgsd_kernels.divergence.chunked import ChunkedDivergence
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.divergence_cases import KINDS, assert_close, by, double, example, expected, run
from tests.support.pairwise import Apart, grid

SMALL_CHUNKS = by(ChunkedDivergence(row_chunk=16, vocab_chunk=50))
OPTIONS: list[dict[str, Any]] = [
    {},
    {"token_clip": 0.01},
    {"temperature": 0.7, "softcap": 3.0},
    {"vocab_limit": 29, "temperature": 1.3},
]


@grid(
    {
        "options": OPTIONS,
        "kind": KINDS,
        "num_rows, width, vocab_size, shape": [
            Apart((0, 8, 33, {})),
            (1, 24, 2, {"num_teachers": 3}),
            (17, 40, 129, {}),
            (33, 8, 257, {"num_teachers": 3}),
            (33, 24, 129, {"num_teachers": 2, "own_head": True}),
            Apart((5, 8, 1, {})),
        ],
    }
)
def test_values_and_gradients_equal_the_definition(
    num_rows: int, width: int, vocab_size: int, shape: dict[str, Any], kind: dict[str, Any], options: dict[str, Any]
) -> None:
    inputs = example(num_rows, width, vocab_size, **shape)
    upstream = torch.randn(num_rows, dtype=torch.float64)
    wanted = expected(inputs, upstream, **kind, **options)
    assert_close(run(SMALL_CHUNKS, inputs, upstream, **kind, **options), wanted, 1e-12, 1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "gradient_error"), [(torch.float32, 5e-6), (torch.bfloat16, 6e-3)])
def test_low_precision_inputs_lose_only_float32_rounding(
    dtype: torch.dtype, gradient_error: float, kind: dict[str, Any]
) -> None:
    inputs = example(33, 40, 1408, num_teachers=2, dtype=dtype)
    upstream = torch.randn(33)
    actual = run(SMALL_CHUNKS, inputs, upstream, **kind)
    assert actual[0].dtype == torch.float32
    assert actual[1][0].dtype == dtype
    assert_close(actual, expected(inputs, upstream, **kind), 2e-6, gradient_error)


@grid(
    {
        "beta": [0.0, 0.3, 0.5, 1.0],
        "clip": [None, 0.02],
        "top_k": [-1, 4],
        "implementation": [Apart("reference"), "chunked"],
    }
)
def test_it_is_the_loss_of_opsd(implementation: Any, top_k: int, clip: float | None, beta: float) -> None:
    inputs = example(9, 8, 33)
    del inputs["bias"]
    upstream = torch.randn(9, dtype=torch.float64)
    kind: dict[str, Any] = {0.0: {"kind": "forward_kl"}, 1.0: {"kind": "reverse_kl"}}.get(
        beta, {"kind": "jsd", "beta": beta}
    )
    options = {"token_clip": clip, "support_top_k": top_k, "temperature": 1.1}
    actual = run(linear_divergence, inputs, upstream, implementation=implementation, **kind, **options)
    wanted = run(opsd_loss, inputs, upstream, beta=beta, top_k=top_k, clip=clip, temperature=1.1)
    assert_close(actual, wanted, 1e-12, 1e-11)


def opsd_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    weight: Tensor,
    *,
    beta: float,
    top_k: int,
    clip: float | None,
    temperature: float,
) -> Tensor:
    """`generalized_jsd_loss` per token from probabilities: p log(p / q) and the mixture, entry by entry."""
    student, teacher = student_hidden @ weight.T / temperature, teacher_hidden @ weight.detach().T / temperature
    if top_k > 0:
        kept = teacher.topk(top_k, dim=-1).indices
        student, teacher = student.gather(-1, kept), teacher.gather(-1, kept)
    p, q = teacher.softmax(-1), student.softmax(-1)
    mixture = beta * p + (1 - beta) * q
    if beta == 0:
        entries = p * (p / q).log()
    elif beta == 1:
        entries = q * (q / p).log()
    else:
        entries = beta * p * (p / mixture).log() + (1 - beta) * q * (q / mixture).log()
    return (entries if clip is None else entries.clamp(max=clip)).sum(-1)


@grid(
    {
        "kind": KINDS,
        "implementation": [Apart("reference"), "chunked"],
        "options": [{"token_clip": 0.05}, {"softcap": 2.0, "temperature": 0.8}, {"vocab_limit": 9}],
    }
)
def test_finite_differences_agree_with_the_gradient(
    implementation: Any, kind: dict[str, Any], options: dict[str, Any]
) -> None:
    inputs = example(3, 3, 11, num_teachers=2)
    mask = torch.tensor([True, False, True])
    leaves = [inputs.pop(name).requires_grad_() for name in ("student_hidden", "weight", "bias")]
    inputs["teacher_weight"], inputs["teacher_bias"] = leaves[1].detach().clone(), leaves[2].detach().clone()

    def function(student_hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_divergence(
            student_hidden,
            weight=weight,
            bias=bias,
            mask=mask,
            implementation=implementation,
            **inputs,
            **kind,
            **options,
        )

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [-10000.0, -120.0, 120.0])
def test_an_offset_of_all_logits_changes_nothing(kind: dict[str, Any], offset: float) -> None:
    inputs = example(17, 8, 129, dtype=torch.float32)
    inputs["bias"] = (inputs["bias"] * 64).round() / 64 + offset
    upstream = torch.randn(17)
    rounding = 2 * torch.finfo(torch.float32).eps * abs(offset)
    wanted = expected(inputs, upstream, **kind)
    assert_close(run(SMALL_CHUNKS, inputs, upstream, **kind), wanted, 5e-6 + rounding, 1e-5 + 4 * rounding)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_teachers", [1, 3])
def test_a_spread_of_200_nats_stays_finite_and_right(kind: dict[str, Any], num_teachers: int) -> None:
    inputs = example(17, 8, 129, num_teachers=num_teachers, own_head=True, dtype=torch.float32)
    inputs["bias"] = torch.linspace(-200.0, 0.0, 129)
    inputs["teacher_bias"] = torch.linspace(0.0, -200.0, 129)
    upstream = torch.ones(17)
    wanted = expected(inputs, upstream, **kind)
    assert wanted[0].isfinite().all()
    assert_close(run(SMALL_CHUNKS, inputs, upstream, **kind), wanted, 2e-5, 5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_a_bias_removes_are_as_if_they_were_not_there(kind: dict[str, Any]) -> None:
    inputs = example(17, 8, 129)
    kept = torch.rand(129) > 0.5
    kept[:60] = False  # a whole chunk
    removed = inputs | {"bias": torch.where(kept, inputs["bias"], -torch.inf)}
    alone = inputs | {"weight": inputs["weight"][kept], "bias": inputs["bias"][kept]}
    upstream = torch.randn(17, dtype=torch.float64)
    wanted = run(linear_divergence, alone, upstream, implementation="reference", **kind)
    for function in (SMALL_CHUNKS, linear_divergence):
        value, (hidden, weight, bias) = run(function, removed, upstream, **kind)
        assert_close((value, [hidden, weight[kept], bias[kept]]), wanted, 1e-12, 1e-11)
        assert weight[~kept].eq(0).all()
        assert bias[~kept].eq(0).all()


def test_a_token_that_only_the_teacher_knows_makes_the_forward_divergence_infinite() -> None:
    inputs = example(5, 8, 33)
    inputs |= {"teacher_weight": inputs["weight"], "teacher_bias": inputs["bias"].clone()}
    inputs["bias"][3] = -torch.inf
    for implementation in ("reference", "chunked"):
        forward = linear_divergence(**inputs, implementation=implementation)
        assert forward.eq(torch.inf).all()
        assert linear_divergence(**inputs, kind="reverse_kl", implementation=implementation).isfinite().all()
        assert linear_divergence(**inputs, kind="jsd", implementation=implementation).isfinite().all()


def test_a_tiny_divergence_keeps_its_digits_in_float32() -> None:
    inputs = example(17, 8, 257, dtype=torch.float32)
    inputs["teacher_hidden"] = inputs["student_hidden"] + 1e-3 * torch.randn(17, 8)
    wanted, _ = expected(inputs, torch.ones(17), kind="jsd")
    actual, _ = run(SMALL_CHUNKS, inputs, torch.ones(17), kind="jsd")
    assert wanted.max() < 1e-5
    torch.testing.assert_close(actual.double(), wanted, rtol=1e-2, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_distributions_are_at_distance_zero_with_no_gradient(kind: dict[str, Any]) -> None:
    inputs = example(17, 8, 129)
    inputs["teacher_hidden"] = inputs["student_hidden"]
    value, gradients = run(SMALL_CHUNKS, inputs, torch.ones(17), **kind)
    torch.testing.assert_close(value, torch.zeros(17, dtype=torch.float64), rtol=0, atol=1e-14)
    assert all(gradient.abs().max() < 1e-13 for gradient in gradients)


def test_the_jensen_shannon_divergence_is_bounded_by_the_entropy_of_its_shares() -> None:
    inputs = example(64, 8, 33)
    for beta in (0.1, 0.5, 0.9):
        value = linear_divergence(**inputs, kind="jsd", beta=beta)
        bound = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
        assert (value > 0).all()
        assert (value < bound).all()


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
def test_a_mixture_of_one_is_that_teacher_and_weights_select(implementation: Any) -> None:
    inputs = example(9, 8, 33, num_teachers=3)
    weights = inputs.pop("mixture_weights")
    options = {"kind": "jsd", "implementation": implementation}
    teachers = inputs["teacher_hidden"]
    second = linear_divergence(**inputs | {"teacher_hidden": teachers[1]}, **options)
    as_stack = linear_divergence(**inputs | {"teacher_hidden": teachers[1:2]}, **options)
    torch.testing.assert_close(as_stack, second, rtol=0, atol=0)
    chosen = linear_divergence(**inputs, mixture_weights=torch.tensor([0.0, 1.0, 0.0]), **options)
    torch.testing.assert_close(chosen, second, rtol=1e-12, atol=1e-12)
    uniform = linear_divergence(**inputs, **options)
    thirds = torch.full((9, 3), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(linear_divergence(**inputs, mixture_weights=thirds, **options), uniform)
    assert not torch.allclose(linear_divergence(**inputs, mixture_weights=weights, **options), uniform)


@pytest.mark.parametrize("options", [{}, {"support_top_k": 3}])
def test_rows_outside_the_mask_are_zero_and_unread(options: dict[str, Any]) -> None:
    inputs = example(9, 8, 33)
    mask = torch.arange(9) % 3 != 1
    upstream = torch.randn(9, dtype=torch.float64)
    value, gradients = run(linear_divergence, inputs, upstream, kind="jsd", **options)
    inputs["student_hidden"][~mask] = torch.nan
    inputs["teacher_hidden"][~mask] = torch.nan
    masked, masked_gradients = run(linear_divergence, inputs, upstream, kind="jsd", mask=mask, **options)
    torch.testing.assert_close(masked, torch.where(mask, value, 0.0), rtol=0, atol=1e-14)
    torch.testing.assert_close(masked_gradients[0][mask], gradients[0][mask])
    assert masked_gradients[0][~mask].eq(0).all()
    nothing, no_gradients = run(linear_divergence, inputs, upstream, mask=torch.zeros(9, dtype=torch.bool), **options)
    assert nothing.eq(0).all()
    assert all(gradient.eq(0).all() for gradient in no_gradients)


def test_rows_without_an_upstream_gradient_are_left_out_of_backward() -> None:
    inputs = example(9, 8, 33, num_teachers=2)
    inputs["student_hidden"].requires_grad_()
    seen: list[int] = []

    class Recording(ChunkedDivergence):
        def gradient_chunk(self, rows: Any) -> tuple[int, int]:
            seen.append(rows.num_rows)
            return super().gradient_chunk(rows)

    upstream = torch.zeros(9, dtype=torch.float64)
    upstream[[2, 5]] = torch.tensor([0.5, -2.0], dtype=torch.float64)
    by(Recording())(**inputs).backward(upstream)
    assert seen == [2]
    wanted = expected(inputs | {"student_hidden": inputs["student_hidden"].detach()}, upstream)[1][0]
    torch.testing.assert_close(inputs["student_hidden"].grad, wanted)


@pytest.mark.parametrize("options", [{}, {"support_top_k": 3}])
def test_strided_inputs_and_offsets_are_read_as_they_are(options: dict[str, Any]) -> None:
    inputs = example(9, 8, 33)
    strided = inputs | {
        "student_hidden": torch.stack([inputs["student_hidden"]] * 2, dim=-1)[..., 1],
        "teacher_hidden": inputs["teacher_hidden"].T.contiguous().T,
        "weight": torch.cat([torch.full((1, 8), torch.nan), inputs["weight"]])[1:],
    }
    assert not strided["student_hidden"].is_contiguous()
    torch.testing.assert_close(linear_divergence(**strided, **options), linear_divergence(**inputs, **options))


def test_a_frozen_head_gets_no_gradient_and_the_teacher_never_does() -> None:
    inputs = example(9, 8, 33)
    inputs["student_hidden"].requires_grad_()
    inputs["teacher_hidden"].requires_grad_()
    linear_divergence(**inputs).sum().backward()
    assert inputs["student_hidden"].grad is not None
    assert inputs["teacher_hidden"].grad is None
    assert inputs["weight"].grad is None


@pytest.mark.parametrize("options", [{}, {"support_top_k": 3}])
def test_a_second_derivative_is_refused(options: dict[str, Any]) -> None:
    inputs = example(3, 8, 33)
    inputs["student_hidden"].requires_grad_()
    value = linear_divergence(**inputs, implementation="chunked", **options)
    with pytest.raises(RuntimeError, match="has no second derivative"):
        torch.autograd.grad(value.sum(), inputs["student_hidden"], create_graph=True)


@pytest.mark.on_cpu
def test_autocast_does_not_reach_the_products() -> None:
    inputs = example(9, 8, 33, dtype=torch.float32)
    plain = run(linear_divergence, inputs, torch.ones(9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = run(linear_divergence, inputs, torch.ones(9))
    torch.testing.assert_close(under_autocast, plain, rtol=0, atol=0)


def test_ties_in_the_top_k_go_to_the_lowest_token() -> None:
    inputs = example(1, 8, 33)
    inputs["bias"] = torch.zeros(33, dtype=torch.float64)
    inputs["teacher_hidden"] = torch.zeros(1, 8, dtype=torch.float64)
    lowest = inputs | {"weight": inputs["weight"][:4], "bias": inputs["bias"][:4]}
    wanted = linear_divergence(**lowest, implementation="reference")
    for implementation in ("reference", "chunked"):
        actual = linear_divergence(**inputs, support_top_k=4, implementation=implementation)
        torch.testing.assert_close(actual, wanted)


def test_a_top_k_beyond_the_vocabulary_is_the_whole_of_it() -> None:
    inputs = example(5, 8, 33)
    wanted = linear_divergence(**inputs, kind="jsd", implementation="reference")
    for implementation in ("reference", "chunked"):
        actual = linear_divergence(**inputs, kind="jsd", support_top_k=50, implementation=implementation)
        torch.testing.assert_close(actual, wanted)


class LargestTensor(TorchDispatchMode):
    """Records the most entries that a new tensor has."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, tuple | list) else [result]:
            if isinstance(leaf, Tensor) and leaf.untyped_storage().nbytes() // leaf.element_size() > self.numel:
                self.numel = leaf.untyped_storage().nbytes() // leaf.element_size()
        return result


@pytest.mark.on_cpu
def test_no_tensor_is_larger_than_a_chunk_when_the_head_is_frozen() -> None:
    inputs = example(64, 8, 1408, num_teachers=3, dtype=torch.float32)
    inputs = {name: value.detach() for name, value in inputs.items() if name != "bias"}
    del inputs["mixture_weights"]
    hidden = inputs.pop("student_hidden").requires_grad_()
    with LargestTensor() as record:
        by(ChunkedDivergence(row_chunk=32, vocab_chunk=128))(hidden, **inputs, kind="jsd").sum().backward()
    assert record.numel == max(32 * 128, 1408 * 8)  # a view of the head counts as the head
    with LargestTensor() as record:
        linear_divergence(hidden, **inputs, implementation="reference")
    assert record.numel >= 3 * 64 * 1408


@pytest.mark.on_cpu
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "total_variation"}, "kind must be one of forward_kl, reverse_kl, jsd; got 'total_variation'"),
        ({"kind": "jsd", "beta": 0.0}, "strictly between 0 and 1 for kind='jsd'; got 0.0. kind='forward_kl'"),
        ({"kind": "jsd", "beta": 1.0}, "kind='reverse_kl' what it calls beta=1"),
        ({"token_clip": 0.0}, "token_clip must be above 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"support_top_k": 0}, "support_top_k must be at least 1, or -1"),
        ({"support_tail": True}, "support_tail must come with support_top_k"),
        ({"support_top_k": 2, "teacher_hidden": torch.zeros(2, 5, 8)}, "which has no one top-k; got 2 with 2"),
        ({"teacher_hidden": torch.zeros(4, 8)}, r"teacher_hidden must be \[N, D\] or \[K, N, D\] .* N = 5"),
        ({"teacher_hidden": torch.zeros(0, 5, 8)}, "K at least 1"),
        ({"teacher_hidden": torch.zeros(5, 7)}, "of the teachers: hidden must be"),
        ({"teacher_bias": torch.zeros(33)}, "teacher_bias must come with teacher_weight"),
        ({"teacher_weight": torch.zeros(32, 8)}, "vocab_limit cut both to one; got 32 and 33 columns"),
        ({"teacher_hidden": torch.zeros(5, 8).double()}, "both be float64 or neither; got torch.float32 and"),
        ({"mixture_weights": torch.ones(2)}, r"mixture_weights must be \[K\] or \[N, K\] with K = 1"),
        ({"teacher_hidden": torch.zeros(2, 5, 8), "mixture_weights": torch.ones(2)}, "sum to 1 .* from 2 to 2"),
        ({"teacher_hidden": torch.zeros(2, 5, 8), "mixture_weights": torch.tensor([-1.0, 2])}, "least weight of -1"),
        ({"mask": torch.ones(5)}, r"mask must be \[N\] bool .* got \[5\] torch.float32"),
        ({"mask": torch.ones(4, dtype=torch.bool)}, r"mask must be \[N\] bool with student_hidden's N = 5"),
        ({"bias": torch.zeros(32)}, "bias must be"),
        ({"implementation": "fastest"}, "implementation must be one of .*; got 'fastest'"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(change: dict[str, Any], message: str) -> None:
    arguments = {
        "student_hidden": torch.zeros(5, 8),
        "teacher_hidden": torch.zeros(5, 8),
        "weight": torch.zeros(33, 8),
    }
    with pytest.raises(ValueError, match=message):
        linear_divergence(**arguments | change)


def test_float64_comes_back_as_float64_and_all_else_as_float32() -> None:
    inputs = example(3, 8, 33)
    assert linear_divergence(**inputs).dtype == torch.float64
    half = {name: value.to(torch.bfloat16) for name, value in inputs.items()}
    for implementation in ("reference", "chunked"):
        assert linear_divergence(**half, implementation=implementation).dtype == torch.float32
    assert double(half)["weight"].dtype == torch.float64
