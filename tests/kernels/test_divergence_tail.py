"""The divergence on a top-k support with one entry for all other tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sgsd_kernels import linear_divergence
from torch import Tensor

from tests.kernels.divergence_cases import KINDS, assert_close, example, expected, run
from tests.support.pairwise import Apart, grid

IMPLEMENTATIONS = ["reference", "chunked"]
IMPLEMENTATION_LEVELS = [Apart("reference"), "chunked"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"token_clip": 0.02},
    {"temperature": 0.7, "softcap": 3.0},
    {"vocab_limit": 29, "temperature": 1.3},
]


def from_probabilities(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    support_top_k: int,
    kind: str,
    beta: float = 0.5,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    token_clip: float | None = None,
) -> Tensor:
    """The definition anew: k probabilities and 1 - their sum, p log(p / q) entry by entry."""

    def distribution(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        logits = (hidden @ weight.T + bias)[:, :vocab_limit]
        logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        return (logits / temperature).softmax(-1)

    p = distribution(teacher_hidden, weight.detach(), bias.detach())
    q = distribution(student_hidden, weight, bias)
    kept = p.topk(min(support_top_k, p.shape[1] - 1), dim=-1).indices
    p, q = p.gather(-1, kept), q.gather(-1, kept)
    p, q = (torch.cat([part, 1 - part.sum(-1, keepdim=True)], dim=-1) for part in (p, q))
    m = beta * p + (1 - beta) * q
    entries = {
        "forward_kl": p * (p / q).log(),
        "reverse_kl": q * (q / p).log(),
        "jsd": beta * p * (p / m).log() + (1 - beta) * q * (q / m).log(),
    }[kind]
    return (entries if token_clip is None else entries.clamp(max=token_clip)).sum(-1)


@grid(
    {
        "options": OPTIONS,
        "kind": KINDS,
        "num_rows, width, vocab_size, top_k": [Apart((0, 8, 33, 4)), (1, 24, 2, 1), (17, 40, 129, 7), (33, 8, 257, 28)],
        "implementation": IMPLEMENTATION_LEVELS,
    }
)
def test_values_and_gradients_are_those_of_k_probabilities_and_the_rest(
    implementation: Any,
    num_rows: int,
    width: int,
    vocab_size: int,
    top_k: int,
    kind: dict[str, Any],
    options: dict[str, Any],
) -> None:
    inputs = example(num_rows, width, vocab_size)
    upstream = torch.randn(num_rows, dtype=torch.float64)
    settings = {"support_top_k": top_k, **kind, **options}
    actual = run(linear_divergence, inputs, upstream, support_tail=True, implementation=implementation, **settings)
    assert_close(actual, run(from_probabilities, inputs, upstream, **settings), 1e-10, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_finite_differences_agree_with_the_gradient(implementation: Any, kind: dict[str, Any]) -> None:
    inputs = example(3, 3, 11)
    leaves = [inputs[name].clone().requires_grad_() for name in ("student_hidden", "weight", "bias")]
    head = {"teacher_weight": inputs["weight"], "teacher_bias": inputs["bias"]}

    def function(student_hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_divergence(
            student_hidden,
            inputs["teacher_hidden"],
            weight,
            bias=bias,
            mask=torch.tensor([True, False, True]),
            support_top_k=4,
            support_tail=True,
            temperature=1.2,
            implementation=implementation,
            **head,
            **kind,
        )

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("implementation", "rounding"), [("reference", 1e-12), ("chunked", 1e-8)])
def test_it_grows_with_k_towards_the_divergence_over_the_whole_vocabulary(
    implementation: Any, rounding: float, kind: dict[str, Any]
) -> None:
    """One minus the rest has 1e-16 of error, which is much of the log of a rest of 1e-9: hence the slack."""
    inputs = example(64, 8, 129)
    settings = {"support_tail": True, "implementation": implementation, **kind}
    values = [linear_divergence(**inputs, support_top_k=k, **settings) for k in (1, 2, 5, 20, 60, 128)]
    whole = linear_divergence(**inputs, implementation="reference", **kind)
    for smaller, larger in zip(values, [*values[1:], whole], strict=True):
        assert (smaller <= larger + rounding).all()
    assert (values[0] < 0.9 * whole).any()
    torch.testing.assert_close(values[-1], whole, rtol=0, atol=rounding)  # one token in the rest is that token


@grid({"kind": KINDS, "top_k": [33, 50], "implementation": IMPLEMENTATION_LEVELS})
def test_without_a_rest_it_is_the_divergence_over_the_whole_vocabulary(
    implementation: Any, top_k: int, kind: dict[str, Any]
) -> None:
    inputs = example(5, 8, 33)
    upstream = torch.randn(5, dtype=torch.float64)
    settings = {"support_top_k": top_k, "support_tail": True, "implementation": implementation}
    assert_close(
        run(linear_divergence, inputs, upstream, **settings, **kind), expected(inputs, upstream, **kind), 1e-11, 1e-11
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharpness", [1.0, 4.0, 30.0])
def test_confident_distributions_in_float32_stay_finite_and_close(kind: dict[str, Any], sharpness: float) -> None:
    """At 30 the rest of most rows is below the last place of 1."""
    inputs = example(65, 40, 1408, dtype=torch.float32)
    inputs["weight"] = inputs["weight"] * sharpness
    inputs["teacher_hidden"] = inputs["student_hidden"] + 0.1 * inputs["teacher_hidden"]
    upstream = torch.ones(65)
    settings = {"support_top_k": 20, "support_tail": True, **kind}
    actual = run(linear_divergence, inputs, upstream, **settings)
    wanted = expected(inputs, upstream, **settings)
    assert_close(actual, wanted, 1e-4, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_column_is_in_no_rest(kind: dict[str, Any]) -> None:
    inputs = example(17, 8, 129)
    kept = torch.rand(129) > 0.5
    removed = inputs | {"bias": torch.where(kept, inputs["bias"], -torch.inf)}
    alone = inputs | {"weight": inputs["weight"][kept], "bias": inputs["bias"][kept]}
    upstream = torch.randn(17, dtype=torch.float64)
    settings = {"support_top_k": 5, "support_tail": True, **kind}
    value, (hidden, weight, bias) = run(linear_divergence, removed, upstream, **settings)
    wanted = run(linear_divergence, alone, upstream, implementation="reference", **settings)
    assert_close((value, [hidden, weight[kept], bias[kept]]), wanted, 1e-10, 1e-9)
    assert weight[~kept].eq(0).all()
