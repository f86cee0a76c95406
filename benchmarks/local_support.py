"""SGSD's loss on the teachers' top tokens, from hidden states of the student and K teachers, with its gradient.

python -m benchmarks.local_support [--small] [--out benchmarks/results/kernels]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from sgsd_kernels import Implementation, gated_support, support_logprob, teacher_support
from torch import Tensor

from benchmarks import exact
from benchmarks.cases import FORWARD, MODES, TRAINED, Inputs, Mode, Size, full_sizes, row_chunks
from benchmarks.command_line import main
from benchmarks.harness import Tolerance, Workload
from benchmarks.peers import ours
from benchmarks.peers.eager import why_not_compiled
from benchmarks.providers import Answer, Build, Provider, Question, Run, differentiated

SUPPORT_TOP_K = 32
AUTHORS = "eager, the authors' scheme"

LossFunction = Callable[[Tensor, Tensor, Inputs], exact.GatedLoss]


class LocalSupport(Workload):
    """K T teacher rows over the whole vocabulary without gradient, the student on k + 1 tokens per teacher."""

    name = "local_support"
    tolerance: ClassVar[Tolerance] = {
        "loss": {"float32": 1e-4, "bfloat16": 0.1},
        "stance_score": {"float32": 1e-4, "bfloat16": 0.1},
        "grad_hidden": {"float32": 2e-2, "bfloat16": 0.5},
        "grad_weight": {"float32": 2e-2, "bfloat16": 0.5},
    }

    def sizes(self) -> list[Size]:
        return full_sizes()

    def modes(self, size: Size) -> Sequence[Mode]:
        return MODES

    def required_flops(self, size: Size, mode: Mode) -> int:
        on_support = 2 * size.tokens * size.teachers * (SUPPORT_TOP_K + 1) * size.width
        return size.product_flops * size.teachers + on_support * (1 + MODES.index(mode))

    def product_rows(self, size: Size, mode: Mode) -> int:
        return size.tokens * size.teachers

    def reference(self, inputs: Inputs, mode: Mode, question: Question, dtype: torch.dtype) -> Answer:
        weight = inputs.weight.to(dtype)
        support = _supports(inputs, weight)
        chunks = list(row_chunks(inputs.size.tokens, support.ids[0].numel() * inputs.size.width))
        student = torch.empty_like(support.logprob)
        with torch.no_grad():
            for rows in chunks:
                student[rows] = _on_support(inputs.student_hidden[rows].to(dtype), weight, support.rows(rows))
        truth = _loss_on_support(student.requires_grad_(), support, inputs)
        answer = {"loss": truth.loss.detach(), "stance_score": truth.stance_score}
        if mode == FORWARD:
            return answer
        (slopes,) = torch.autograd.grad(truth.loss, student)
        head = weight.detach().requires_grad_(mode == TRAINED)
        answer["grad_hidden"] = torch.empty(inputs.student_hidden.shape, dtype=dtype, device=weight.device)
        if mode == TRAINED:
            answer["grad_weight"] = torch.zeros_like(weight)
        for rows in chunks:
            hidden = inputs.student_hidden[rows].to(dtype).requires_grad_()
            logprob = _on_support(hidden, head, support.rows(rows))
            gradients = torch.autograd.grad(logprob, [hidden, head] if mode == TRAINED else [hidden], slopes[rows])
            answer["grad_hidden"][rows] = gradients[0]
            if mode == TRAINED:
                answer["grad_weight"] += gradients[1]
        return answer

    def providers(self) -> list[Provider]:
        return [*map(_fused, ours.IMPLEMENTATIONS), *_whole_logits_providers()]


class _Support(NamedTuple):
    """Of T tokens under K teachers, in k + 1 slots of which the last is the target's unless it is in the top k."""

    ids: Tensor
    """[T, K, k + 1] int64."""
    logprob: Tensor
    """[T, K, k + 1]: the teacher's, renormalised; 0 in slots not in use."""
    in_use: Tensor
    """[T, K, k + 1] bool."""
    target_slot: Tensor
    """[T, K] int64."""

    def rows(self, rows: slice) -> _Support:
        return _Support(*(part[rows] for part in self))


def _supports(inputs: Inputs, weight: Tensor) -> _Support:
    def of(rows: slice) -> _Support:
        hidden = inputs.teacher_hidden[:, rows].to(weight.dtype)
        return _stacked([_support_of(teacher @ weight.T, inputs.targets[rows]) for teacher in hidden])

    parts = [of(rows) for rows in row_chunks(inputs.size.tokens, inputs.size.vocabulary)]
    return _Support(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _stacked(teachers: Sequence[_Support]) -> _Support:
    return _Support(*(torch.stack(column, 1) for column in zip(*teachers, strict=True)))


def _support_of(logits: Tensor, targets: Tensor) -> _Support:
    """One teacher's support [T, k + 1] from its logits [T, V]; renormalised in float32 at least."""
    top, top_ids = logits.topk(min(SUPPORT_TOP_K, logits.shape[-1]), dim=-1)
    target = targets.unsqueeze(-1)
    is_target = top_ids == target
    is_extra = ~is_target.any(-1, keepdim=True)
    in_use = torch.cat([torch.ones_like(is_target), is_extra], -1)
    return _Support(
        torch.cat([top_ids, target], -1),
        _local_logprob(torch.cat([top, logits.gather(-1, target)], -1), in_use),
        in_use,
        torch.cat([is_target, is_extra], -1).to(torch.int64).argmax(-1),
    )


def _local_logprob(logits: Tensor, in_use: Tensor) -> Tensor:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype).masked_fill(~in_use, -torch.inf).log_softmax(-1).masked_fill(~in_use, 0.0)


def _on_support(hidden: Tensor, weight: Tensor, support: _Support) -> Tensor:
    """The student's local log-probabilities [T, K, k + 1]; 0 in slots not in use."""
    return _local_logprob(torch.einsum("td,tksd->tks", hidden, weight[support.ids]), support.in_use)


def _loss_on_support(student: Tensor, support: _Support, inputs: Inputs) -> exact.GatedLoss:
    """The gate reads the divergence on the support, the stance the local log-ratio of the target."""
    probability = support.logprob.exp().masked_fill(~support.in_use, 0.0)
    divergence = (probability * (support.logprob - student)).sum(-1)

    def of_target(logprob: Tensor) -> Tensor:
        return logprob.gather(-1, support.target_slot.unsqueeze(-1)).squeeze(-1).T

    return exact.gated_loss(of_target(student), of_target(support.logprob), inputs, divergence.T)


def _whole_logits(hidden: Tensor, weight: Tensor, inputs: Inputs, is_repeated: bool) -> exact.GatedLoss:
    """Rounded logits of everybody; ``is_repeated`` projects the student once per teacher, as the authors do."""
    copies = inputs.size.teachers if is_repeated else 1
    student = (hidden.repeat(copies, 1) @ weight.T).unflatten(0, (copies, -1))
    supports, local = [], []
    for index, teacher_hidden in enumerate(inputs.teacher_hidden):
        with torch.no_grad():
            support = _support_of(teacher_hidden @ weight.T, inputs.targets)
        supports.append(support)
        local.append(_local_logprob(student[index % copies].gather(-1, support.ids), support.in_use))
    return _loss_on_support(torch.stack(local, 1), _stacked(supports), inputs)


def _whole_logits_providers() -> list[Provider]:
    def compiled(inputs: Inputs, mode: Mode) -> Run:
        return _run(torch.compile(partial(_whole_logits, is_repeated=False), dynamic=False), inputs, mode)

    def eager(is_repeated: bool) -> Build:
        return lambda inputs, mode: _run(partial(_whole_logits, is_repeated=is_repeated), inputs, mode)

    note = "logits are rounded; the student over the whole vocabulary"
    return [
        Provider(AUTHORS, eager(True), precision="bfloat16", note=f"{note}, once per teacher"),
        Provider("eager", eager(False), precision="bfloat16", note=note),
        Provider("torch.compile", compiled, why_unavailable=why_not_compiled, precision="bfloat16", note=note),
    ]


def _fused(implementation: Implementation) -> Provider:
    def compute(hidden: Tensor, weight: Tensor, inputs: Inputs) -> exact.GatedLoss:
        num_rollouts, (num_teachers, tokens) = len(inputs.outcome), inputs.teacher_hidden.shape[:2]
        support = teacher_support(
            inputs.teacher_hidden.flatten(0, 1),
            weight.detach(),
            inputs.targets.repeat(num_teachers),
            SUPPORT_TOP_K,
            implementation=implementation,
        )

        def by_token(values: Tensor) -> Tensor:
            return values.unflatten(0, (num_teachers, tokens)).transpose(0, 1)

        def by_rollout(values: Tensor) -> Tensor:
            return values.unflatten(0, (num_rollouts, -1)).transpose(1, 2)

        student = support_logprob(
            hidden, weight, by_token(support.ids), by_token(support.mask), implementation=implementation
        )
        output = gated_support(
            by_rollout(student),
            by_rollout(by_token(support.logprob)),
            by_rollout(by_token(support.target_slot)),
            inputs.loss_mask.unflatten(0, (num_rollouts, -1)),
            inputs.context_weight,
            inputs.outcome,
        )
        return exact.GatedLoss(output.rollout_loss.mean(), output.stance_score)

    def build(inputs: Inputs, mode: Mode) -> Run:
        if inputs.size.tokens % len(inputs.outcome):
            raise NotImplementedError("gated_support takes rollouts of one length")
        return _run(compute, inputs, mode)

    return Provider(
        ours.label(implementation), build, why_unavailable=ours.why_unavailable(implementation, "teacher_support")
    )


def _run(compute: LossFunction, inputs: Inputs, mode: Mode) -> Run:
    def named(hidden: Tensor, weight: Tensor) -> Answer:
        output = compute(hidden, weight, inputs)
        return {"loss": output.loss, "stance_score": output.stance_score}

    return differentiated(named, "loss", inputs, mode)


if __name__ == "__main__":
    sys.exit(main([LocalSupport()], "benchmarks.local_support"))
