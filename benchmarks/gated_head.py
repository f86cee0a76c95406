"""SGSD's loss from hidden states of the student and K teachers, with its gradient.

Measured by what the trainer calls (`linear_logprob` per teacher and for the student, `gated_polarity` on [B, K, T]),
for which the goals are stated, by `gated_polarity_head_loss`, which takes all states at once, and by peers.

python -m benchmarks.gated_head [--small] [--out benchmarks/results/kernels]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from sgsd_kernels import Implementation, gated_polarity, gated_polarity_head_loss, linear_logprob
from torch import Tensor

from benchmarks import exact
from benchmarks.cases import FORWARD, MODES, TRAINED, Inputs, Mode, Size, full_sizes
from benchmarks.command_line import main
from benchmarks.harness import Tolerance, Workload
from benchmarks.peers import ours, row_logprob_peers
from benchmarks.peers.contracts import RowLogprobPeer
from benchmarks.peers.eager import rounded_logprob
from benchmarks.providers import Answer, Provider, Question, Run, differentiated

AUTHORS = "eager, the authors' scheme"
TRAINER = ", as the trainer calls it"
"""What the names of the trainer's own calls end with, after `ours.label`."""

LossFunction = Callable[[Tensor, Tensor, Inputs], exact.GatedLoss]
"""(student_hidden [T, D], weight [V, D], inputs) -> the loss, differentiable in both."""


class GatedHead(Workload):
    """The head of one SGSD step: (K + 1) T rows forward, the student's T rows backward."""

    name = "gated_head"
    tolerance: ClassVar[Tolerance] = {
        "loss": {"float32": 1e-4, "bfloat16": 0.1},
        "stance_score": {"float32": 1e-4, "bfloat16": 0.1},
        "grad_hidden": {"float32": 1e-2, "bfloat16": 0.5},
        "grad_weight": {"float32": 1e-2, "bfloat16": 0.5},
    }

    def sizes(self) -> list[Size]:
        return full_sizes()

    def modes(self, size: Size) -> Sequence[Mode]:
        return MODES

    def required_flops(self, size: Size, mode: Mode) -> int:
        return size.product_flops * (1 + size.teachers + MODES.index(mode))

    def product_rows(self, size: Size, mode: Mode) -> int:
        return size.rows

    def reference(self, inputs: Inputs, mode: Mode, question: Question, dtype: torch.dtype) -> Answer:
        weight = inputs.weight.to(dtype)
        student = exact.row_logprob(inputs.student_hidden, weight, inputs.targets).requires_grad_()
        teachers = torch.stack([exact.row_logprob(hidden, weight, inputs.targets) for hidden in inputs.teacher_hidden])
        truth = exact.gated_loss(student, teachers, inputs)
        answer = {"loss": truth.loss.detach(), "stance_score": truth.stance_score}
        if mode == FORWARD:
            return answer
        (coefficient,) = torch.autograd.grad(truth.loss, student)
        grad_hidden, grad_weight = exact.row_gradients(
            inputs.student_hidden, weight, inputs.targets, coefficient, mode == TRAINED
        )
        answer["grad_hidden"] = grad_hidden
        return answer if grad_weight is None else {**answer, "grad_weight": grad_weight}

    def providers(self) -> list[Provider]:
        fused = [make(implementation) for make in (_as_trained, _fused) for implementation in ours.IMPLEMENTATIONS]
        authors = Provider(
            AUTHORS,
            lambda inputs, mode: _run(_repeated_student, inputs, mode),
            precision="bfloat16",
            note="logits are rounded; the student is projected once per teacher; without their entropies",
        )
        mine = {ours.label(implementation) for implementation in ours.IMPLEMENTATIONS}
        peers = [peer for peer in row_logprob_peers() if peer.question == "rows" and peer.name not in mine]
        return [*fused, authors, *map(_composed, peers)]


def _as_trained(implementation: Implementation) -> Provider:
    """The trainer's calls, entropies included: no more than one teacher's hidden states need exist at a time."""

    def compute(hidden: Tensor, weight: Tensor, inputs: Inputs) -> exact.GatedLoss:
        def logprob(states: Tensor, head: Tensor) -> Tensor:
            found = linear_logprob(states, head, inputs.targets, entropy=True, implementation=implementation)
            return found.logprob.view(len(inputs.outcome), -1)  # rollouts are of one length

        with torch.no_grad():
            teachers = torch.stack([logprob(states, weight.detach()) for states in inputs.teacher_hidden], dim=1)
        student = logprob(hidden, weight)
        output = gated_polarity(
            student,
            teachers,
            inputs.loss_mask.view_as(student),
            inputs.context_weight,
            inputs.outcome,
            implementation=implementation,
        )
        return exact.GatedLoss(output.rollout_loss.mean(), output.stance_score)

    return Provider(
        ours.label(implementation) + TRAINER,
        lambda inputs, mode: _run(compute, inputs, mode),
        why_unavailable=ours.why_unavailable(implementation, "linear_logprob"),
    )


def _fused(implementation: Implementation) -> Provider:
    """`gated_polarity_head_loss`, the student and all teachers in one pass."""

    def compute(hidden: Tensor, weight: Tensor, inputs: Inputs) -> exact.GatedLoss:
        output = gated_polarity_head_loss(
            hidden,
            inputs.teacher_hidden,
            weight,
            inputs.targets,
            inputs.loss_mask,
            inputs.rollout_offsets,
            inputs.context_weight,
            inputs.outcome,
            implementation=implementation,
        )
        return exact.GatedLoss(output.gate.rollout_loss.mean(), output.gate.stance_score)

    return Provider(
        ours.label(implementation),
        lambda inputs, mode: _run(compute, inputs, mode),
        why_unavailable=ours.why_unavailable(implementation, "linear_logprob"),
    )


def _repeated_student(hidden: Tensor, weight: Tensor, inputs: Inputs) -> exact.GatedLoss:
    """One item per (rollout, teacher), each with the same student rollout, projected with gradient."""
    num_teachers = inputs.size.teachers
    targets = inputs.targets.repeat(num_teachers)
    student = rounded_logprob(hidden.repeat(num_teachers, 1), weight, targets)
    with torch.no_grad():
        teacher = rounded_logprob(inputs.teacher_hidden.flatten(0, 1), weight, targets)
    shape = (num_teachers, inputs.size.tokens)
    return exact.gated_loss(student.float().reshape(shape), teacher.float().reshape(shape), inputs)


def _composed(peer: RowLogprobPeer) -> Provider:
    """Log-probabilities by a peer, the student's once, and the gate in plain torch."""

    def build(inputs: Inputs, mode: Mode) -> Run:
        logprob = peer.make()

        def compute(hidden: Tensor, weight: Tensor, inputs: Inputs) -> exact.GatedLoss:
            with torch.no_grad():
                targets = inputs.targets.repeat(inputs.size.teachers)
                teacher = logprob(inputs.teacher_hidden.flatten(0, 1), weight.detach(), targets)
            student = logprob(hidden, weight, inputs.targets).float()
            return exact.gated_loss(student, teacher.float().reshape(-1, inputs.size.tokens), inputs)

        return _run(compute, inputs, mode)

    return Provider(peer.name, build, why_unavailable=peer.why_unavailable, precision=peer.precision, note=peer.note)


def _run(compute: LossFunction, inputs: Inputs, mode: Mode) -> Run:
    def named(hidden: Tensor, weight: Tensor) -> Answer:
        output = compute(hidden, weight, inputs)
        return {"loss": output.loss, "stance_score": output.stance_score}

    return differentiated(named, "loss", inputs, mode)


if __name__ == "__main__":
    sys.exit(main([GatedHead()], "benchmarks.gated_head"))
