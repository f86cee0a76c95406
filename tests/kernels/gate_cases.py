"""The gated loss by hand, and the three layouts in which it is offered: padded, packed, and from hidden states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sgsd_kernels import GatedPolarityOutput, gated_polarity, gated_polarity_head_loss, ragged_gated_polarity
from torch import Tensor

IMPLEMENTATIONS = ["reference", "chunked", "triton", "cublas"]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"gate_temperature": 0.3, "log_ratio_clip": 0.8, "stance_threshold": 0.2},
    {"polarity": "imitate"},
]
MEASURED = ("stance_score", "raw_stance_score", "stance", "polarity", "gated_loss", "clipped_token_frac")
"""Fields of `GatedPolarityOutput` of shape [B, K]."""
WIDTH, VOCAB_SIZE = 16, 50


def rollout_by_hand(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    *,
    gate_temperature: float = 1.0,
    log_ratio_clip: float = 3.0,
    stance_threshold: float = 0.05,
    polarity: str = "validated",
) -> tuple[Tensor, dict[str, Tensor]]:
    """One rollout's loss, left to autograd, and what was measured [K].

    ``student`` and ``mask`` are [T], ``teacher`` is [K, T], ``context_weight`` is [K].
    """
    is_present = context_weight != 0
    log_ratio = torch.where(is_present.unsqueeze(1), teacher[:, mask] - student[mask], 0.0)
    num_tokens = max(1, int(mask.sum()))
    fixed = log_ratio.detach()
    score = fixed.clamp(-log_ratio_clip, log_ratio_clip).sum(-1) / num_tokens
    stance = score.sign() * (score.abs() > stance_threshold)
    rho = is_present.to(score.dtype) if polarity == "imitate" else outcome * stance
    entries = math.log(2) - torch.log(1 + torch.exp(-(log_ratio**2) / (2 * gate_temperature)))
    row_loss = entries.sum(-1) / num_tokens
    measured = {
        "stance_score": score,
        "raw_stance_score": fixed.sum(-1) / num_tokens,
        "stance": stance,
        "polarity": rho,
        "gated_loss": row_loss.detach(),
        "clipped_token_frac": (fixed.abs() > log_ratio_clip).sum(-1) / num_tokens,
    }
    return (context_weight * rho * row_loss).sum(), {name: value.to(score.dtype) for name, value in measured.items()}


def double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def rollouts(lengths: Sequence[int], num_contexts: int) -> dict[str, Tensor]:
    """What all layouts share, packed: every outcome, masked tokens, and a context that is not there."""
    weight = torch.rand(len(lengths), num_contexts) + 0.1
    if num_contexts > 1:
        weight[::2, 1] = 0
    return {
        "loss_mask": torch.rand(sum(lengths)) > 0.3,
        "rollout_offsets": torch.tensor([0, *lengths]).cumsum(0),
        "context_weight": weight,
        "outcome": torch.tensor([1.0, -1.0, 0.0]).repeat(len(lengths))[: len(lengths)],
    }


def logprobs(lengths: Sequence[int], num_contexts: int) -> dict[str, Tensor]:
    """Inputs of `ragged_gated_polarity`, in float32."""
    return {
        "student_logprob": -torch.rand(sum(lengths)) * 3,
        "teacher_logprob": -torch.rand(num_contexts, sum(lengths)) * 3,
        **rollouts(lengths, num_contexts),
    }


def hidden_states(lengths: Sequence[int], num_contexts: int) -> dict[str, Tensor]:
    """Inputs of `gated_polarity_head_loss`, in float32; teachers near the student, so that the gate is open."""
    student = torch.randn(sum(lengths), WIDTH)
    return {
        "student_hidden": student,
        "teacher_hidden": student + 0.3 * torch.randn(num_contexts, *student.shape),
        "weight": torch.randn(VOCAB_SIZE, WIDTH) * 0.5,
        "bias": torch.randn(VOCAB_SIZE),
        "targets": torch.randint(VOCAB_SIZE, (sum(lengths),)),
        **rollouts(lengths, num_contexts),
    }


def of_padded(inputs: dict[str, Tensor], **settings: Any) -> GatedPolarityOutput:
    """`gated_polarity` of packed inputs, with other rollouts' numbers in the padding; coefficients packed again."""
    lengths = inputs["rollout_offsets"].diff()
    longest = int(lengths.max()) if len(lengths) else 0
    is_token = torch.arange(longest) < lengths.unsqueeze(1)  # [B, T]

    def pad(values: Tensor, filling: float) -> Tensor:
        return torch.full(is_token.shape, filling, dtype=values.dtype).masked_scatter(is_token, values)

    teachers = [pad(teacher, -1.0) for teacher in inputs["teacher_logprob"]]
    output = gated_polarity(
        pad(inputs["student_logprob"], -2.0),
        torch.stack(teachers, dim=1) if teachers else inputs["teacher_logprob"].new_zeros(len(lengths), 0, longest),
        pad(inputs["loss_mask"], False),
        inputs["context_weight"],
        inputs["outcome"],
        **settings,
    )
    return output.with_coefficient(output.token_coefficient[is_token])


def of_packed(inputs: dict[str, Tensor], **settings: Any) -> GatedPolarityOutput:
    return ragged_gated_polarity(**inputs, **settings)


def of_hidden(inputs: dict[str, Tensor], **settings: Any) -> GatedPolarityOutput:
    return gated_polarity_head_loss(**inputs, **settings).gate


def of_capped_hidden(inputs: dict[str, Tensor], **settings: Any) -> GatedPolarityOutput:
    return gated_polarity_head_loss(**inputs, temperature=0.8, softcap=6.0, **settings).gate


def given(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return inputs["student_logprob"], inputs["teacher_logprob"]


def from_whole_logits(inputs: dict[str, Tensor], temperature: float = 1.0, softcap: float | None = None) -> Any:
    """The student's log-probabilities [M], and the teachers' [K, M] with a head of their own that does not learn."""

    def chosen(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        logits = hidden @ weight.T + bias
        logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        targets = inputs["targets"].expand(hidden.shape[:-1]).unsqueeze(-1)
        return (logits / temperature).log_softmax(-1).gather(-1, targets).squeeze(-1)

    weight, bias = inputs["weight"], inputs["bias"]
    with torch.no_grad():
        teachers = chosen(inputs["teacher_hidden"], weight, bias)
    return chosen(inputs["student_hidden"], weight, bias), teachers


def from_whole_capped_logits(inputs: dict[str, Tensor]) -> Any:
    return from_whole_logits(inputs, temperature=0.8, softcap=6.0)


@dataclass(frozen=True)
class Layout:
    """One way to ask for the gated loss."""

    name: str
    example: Callable[[Sequence[int], int], dict[str, Tensor]]
    gate: Callable[..., GatedPolarityOutput]
    logprobs: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
    learning: tuple[str, ...]
    rounding: float
    """Of log-probabilities in float32, and of what is made of them."""
    longest: int = 1000
    """The most tokens of a rollout in an example: rows of a head cost milliseconds in the interpreter."""

    def __str__(self) -> str:
        return self.name

    def run(
        self, inputs: dict[str, Tensor], upstream: Tensor, **settings: Any
    ) -> tuple[GatedPolarityOutput, list[Tensor]]:
        """The output, and the gradients of ``upstream . rollout_loss`` in what learns."""
        leaves = {name: inputs[name].clone().requires_grad_() for name in self.learning}
        output = self.gate({**inputs, **leaves}, **settings)
        loss = (output.rollout_loss * upstream.to(output.rollout_loss.dtype)).sum()
        return output, list(torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True, allow_unused=True))

    def by_hand(
        self, inputs: dict[str, Tensor], upstream: Tensor, **settings: Any
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """The same in float64, one rollout after the other: losses [B], what was measured [B, K], gradients."""
        exact = double(inputs)
        leaves = [exact[name].clone().requires_grad_() for name in self.learning]
        exact |= dict(zip(self.learning, leaves, strict=True))
        student, teacher = self.logprobs(exact)
        bounds = exact["rollout_offsets"].tolist()
        losses, measured = [student[:0].sum()], []
        for row, tokens in enumerate(map(slice, bounds, bounds[1:])):
            loss, found = rollout_by_hand(
                student[tokens],
                teacher[:, tokens],
                exact["loss_mask"][tokens],
                exact["context_weight"][row],
                exact["outcome"][row],
                **settings,
            )
            losses.append(loss)
            measured.append(found)
        loss = torch.stack(losses)[1:]
        gradients = torch.autograd.grad(loss @ upstream.double(), leaves, materialize_grads=True, allow_unused=True)
        fields = {name: torch.stack([found[name] for found in measured]) for name in MEASURED if measured}
        return loss.detach(), fields, list(gradients)


LEARNING = ("student_hidden", "weight", "bias")
PADDED = Layout("padded", logprobs, of_padded, given, ("student_logprob",), 2e-7)
PACKED = Layout("packed", logprobs, of_packed, given, ("student_logprob",), 2e-7)
HEAD = Layout("head", hidden_states, of_hidden, from_whole_logits, LEARNING, 5e-6, longest=9)
CAPPED_HEAD = Layout(
    "capped-head", hidden_states, of_capped_hidden, from_whole_capped_logits, LEARNING, 5e-6, longest=9
)
LAYOUTS = [PADDED, PACKED, HEAD, CAPPED_HEAD]
