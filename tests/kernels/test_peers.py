"""The head against other libraries, where they compute the same thing on a CPU, within their own rounding."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from sgsd_kernels import Implementation, linear_divergence, linear_logprob
from torch import Tensor
from torch.nn import functional

from tests.kernels.head_cases import double, example
from tests.support.pairwise import Apart, grid

pytestmark = pytest.mark.on_cpu

Peer = Callable[[dict[str, Tensor]], Tensor]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("chunked", "auto")
IGNORED = -100


def torch_whole(inputs: dict[str, Tensor]) -> Tensor:
    """torch's `linear_cross_entropy` with whole logits."""
    return _torch_peer(inputs, options=None)


def torch_chunked(inputs: dict[str, Tensor]) -> Tensor:
    """torch's `linear_cross_entropy` by chunks of rows, gradients made in its forward."""
    if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        pytest.skip("this torch has no LinearCrossEntropyOptions (2.13 has them)")
    return _torch_peer(inputs, options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=5))


def _torch_peer(inputs: dict[str, Tensor], **options: Any) -> Tensor:
    if not hasattr(functional, "linear_cross_entropy"):
        pytest.skip("this torch has no linear_cross_entropy (2.13 has it)")
    return -functional.linear_cross_entropy(
        inputs["hidden"],
        inputs["weight"],
        inputs["targets"],
        linear_bias=inputs["bias"],
        reduction="none",
        ignore_index=IGNORED,
        **options,
    )


def liger_selective(inputs: dict[str, Tensor]) -> Tensor:
    """liger-kernel's chunked log-probabilities of its policy losses, which cannot ignore a row."""
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed")
    module = import_module("liger_kernel.chunked_loss.fused_linear_ppo")
    if not hasattr(module, "_ChunkedSelectiveLogProbFunction"):
        pytest.skip("this liger-kernel has no chunked selective log-probabilities (0.8.5 has them)")
    targets = inputs["targets"]
    temperature, vocab_chunk = 1.0, 50
    logprob = module._ChunkedSelectiveLogProbFunction.apply(
        inputs["hidden"], inputs["weight"], targets.clamp(min=0), inputs["bias"], temperature, vocab_chunk
    )
    return torch.where(targets == IGNORED, 0.0, logprob)


def cut_cross_entropy(inputs: dict[str, Tensor]) -> Tensor:
    """cut-cross-entropy's torch path, run without its compiler; a bias goes in as one more column of the weight."""
    package = pytest.importorskip("cut_cross_entropy", reason="cut-cross-entropy is not installed")
    hidden = torch.cat([inputs["hidden"], inputs["hidden"].new_ones(len(inputs["hidden"]), 1)], dim=1)
    weight = torch.cat([inputs["weight"], inputs["bias"][:, None]], dim=1)
    with torch.compiler.set_stance("force_eager"):
        return -package.linear_cross_entropy(
            hidden, weight, inputs["targets"], reduction="none", ignore_index=IGNORED, impl="torch_compile"
        )


PEERS: tuple[Peer, ...] = (torch_whole, torch_chunked, liger_selective, cut_cross_entropy)


def values_and_gradients(function: Peer, inputs: dict[str, Tensor], upstream: Tensor) -> list[Tensor]:
    """Log-probabilities, and the gradients of upstream . logprob in hidden, weight and bias."""
    leaves = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in inputs.items()}
    logprob = function(leaves)
    learning = [leaves[name] for name in ("hidden", "weight", "bias")]
    return [logprob.detach(), *torch.autograd.grad(logprob, learning, upstream.to(logprob.dtype))]


def ours(implementation: Implementation) -> Peer:
    return lambda inputs: linear_logprob(**inputs, ignore_index=IGNORED, implementation=implementation).logprob


def whole_logits(inputs: dict[str, Tensor]) -> Tensor:
    """The definition, for inputs without ignored rows."""
    logits = inputs["hidden"] @ inputs["weight"].T + inputs["bias"]
    return logits.log_softmax(-1).gather(1, inputs["targets"][:, None])[:, 0]


def errors(actual: list[Tensor], exact: list[Tensor]) -> list[float]:
    """The greatest difference of every tensor, relative to the greatest number of the exact one."""
    return [
        float((value.double() - truth).abs().max() / truth.abs().max())
        for value, truth in zip(actual, exact, strict=True)
    ]


@grid(
    {
        "implementation": IMPLEMENTATIONS,
        "peer": PEERS,
        "num_rows, width, vocab_size": [Apart((1, 8, 33)), (17, 24, 129), (33, 40, 257)],
    }
)
def test_values_and_gradients_are_those_of_a_peer_in_float32(
    num_rows: int, width: int, vocab_size: int, peer: Peer, implementation: Implementation
) -> None:
    inputs = example(num_rows + 1, width, vocab_size, torch.float32)
    upstream = torch.randn(num_rows + 1)
    actual = values_and_gradients(ours(implementation), inputs, upstream)
    expected = values_and_gradients(peer, inputs, upstream)
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("peer", [torch_whole, torch_chunked])
def test_values_and_gradients_are_those_of_torch_in_float64(peer: Peer) -> None:
    inputs = example(17, 24, 129)
    upstream = torch.randn(17, dtype=torch.float64)
    actual = values_and_gradients(ours("chunked"), inputs, upstream)
    for mine, theirs in zip(actual, values_and_gradients(peer, inputs, upstream), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_in_bfloat16_differs_by_its_own_rounding_and_ours_is_nearer_to_float64(peer: Peer) -> None:
    inputs = example(48, 64, 515, torch.bfloat16)
    inputs["targets"] = torch.randint(515, (48,))
    upstream = torch.randn(48)
    exact = values_and_gradients(whole_logits, double(inputs), upstream)
    mine = errors(values_and_gradients(ours("auto"), inputs, upstream), exact)
    theirs = errors(values_and_gradients(peer, inputs, upstream), exact)
    assert mine[0] < 1e-6
    assert all(error < 5e-3 for error in mine[1:])  # half a unit in the last place of bfloat16 is 3.9e-3
    assert mine[0] < 0.01 * theirs[0]
    assert all(error < 0.1 for error in theirs)
    assert all(own < other * 1.01 for own, other in zip(mine, theirs, strict=True))


def test_the_softcap_is_that_of_cut_cross_entropy() -> None:
    package = pytest.importorskip("cut_cross_entropy", reason="cut-cross-entropy is not installed")
    inputs = example(17, 24, 129, torch.float32)
    hidden, weight, targets = inputs["hidden"], inputs["weight"], inputs["targets"]
    with torch.compiler.set_stance("force_eager"):
        loss = package.linear_cross_entropy(
            hidden, weight, targets, softcap=3.0, reduction="none", impl="torch_compile"
        )
    actual = linear_logprob(hidden, weight, targets, softcap=3.0).logprob
    torch.testing.assert_close(actual, -loss, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("kind", "beta", "liger_beta"),
    [("forward_kl", 0.5, 0.0), ("reverse_kl", 0.5, 1.0), ("jsd", 0.5, 0.5), ("jsd", 0.1, 0.1), ("jsd", 0.9, 0.9)],
)
def test_divergences_are_those_of_liger_in_float32(
    kind: Any, beta: float, liger_beta: float, temperature: float
) -> None:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    num_rows, width, vocab_size = 18, 24, 129
    student, weight = torch.randn(num_rows, width), torch.randn(vocab_size, width)
    teacher = student + 0.3 * torch.randn(num_rows, width)
    labels = torch.zeros(num_rows, dtype=torch.int64)
    labels[::3] = IGNORED
    theirs = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0,
        weight_soft_loss=1.0,
        beta=liger_beta,
        temperature=temperature,
        compiled=False,
        chunk_size=6,
    )

    def gradients(function: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        leaves = [student.clone().requires_grad_(), weight.clone().requires_grad_()]
        loss = function(*leaves)
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    def mean_divergence(hidden: Tensor, head: Tensor) -> Tensor:
        mask = labels != IGNORED
        divergence = linear_divergence(
            hidden, teacher, head, kind=kind, beta=beta, temperature=temperature, mask=mask, implementation="chunked"
        )
        return divergence.sum() / mask.sum()

    expected = gradients(lambda hidden, head: theirs(hidden, head, teacher, head.detach(), labels))
    for mine, other in zip(gradients(mean_divergence), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
