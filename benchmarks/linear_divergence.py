"""Full-vocabulary divergences of student and teacher hidden states, with their gradients.

python -m benchmarks.linear_divergence [--small] [--out benchmarks/results/kernels]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from sgsd_kernels import DivergenceKind
from torch import Tensor

from benchmarks import exact
from benchmarks.cases import FORWARD, MODES, SMALL, TRAINED, Inputs, Mode, Size, full_sizes
from benchmarks.command_line import main
from benchmarks.harness import Tolerance, Workload
from benchmarks.peers import divergence_peers
from benchmarks.peers.contracts import DivergencePeer
from benchmarks.providers import Answer, Provider, Question, Run, differentiated


class LinearDivergence(Workload):
    """The mean over rows of one kind of divergence, of one teacher (``jsd``) or of an even mixture (``forward_kl``)."""

    tolerance: ClassVar[Tolerance] = {
        "divergence": {"float32": 1e-4, "bfloat16": 0.1},
        "grad_hidden": {"float32": 2e-2, "bfloat16": 0.5},
        "grad_weight": {"float32": 2e-2, "bfloat16": 0.5},
    }

    def __init__(self, kind: DivergenceKind) -> None:
        self.name = f"linear_divergence_{kind}"
        self._kind = kind

    def sizes(self) -> list[Size]:
        return full_sizes(teachers=(1,) if self._kind == "jsd" else (1, 4, 8))

    def small_sizes(self) -> list[Size]:
        return [replace(SMALL, teachers=1)] if self._kind == "jsd" else [SMALL]

    def modes(self, size: Size) -> Sequence[Mode]:
        return MODES

    def required_flops(self, size: Size, mode: Mode) -> int:
        return size.product_flops * (1 + size.teachers + MODES.index(mode))

    def product_rows(self, size: Size, mode: Mode) -> int:
        return size.rows

    def reference(self, inputs: Inputs, mode: Mode, question: Question, dtype: torch.dtype) -> Answer:
        frozen = inputs.weight.to(dtype)

        def loss_of_rows(rows: slice, hidden: Tensor, weight: Tensor) -> Tensor:
            with torch.no_grad():
                teacher = exact.mixture_logprob(inputs.teacher_hidden[:, rows], frozen)
            return exact.divergence_entries(hidden @ weight.T, teacher, self._kind).sum() / inputs.size.tokens

        divergence, grad_hidden, grad_weight = exact.chunked_gradients(
            inputs.student_hidden, frozen, loss_of_rows, mode == TRAINED
        )
        if mode == FORWARD:
            return {"divergence": divergence}
        answer = {"divergence": divergence, "grad_hidden": grad_hidden}
        return answer if grad_weight is None else {**answer, "grad_weight": grad_weight}

    def providers(self) -> list[Provider]:
        return [self._provider(peer) for peer in divergence_peers()]

    def _provider(self, peer: DivergencePeer) -> Provider:
        def build(inputs: Inputs, mode: Mode) -> Run:
            if inputs.size.teachers > 1 and not peer.has_mixtures:
                raise NotImplementedError("it takes one teacher")
            compute = peer.make()

            def named(student: Tensor, weight: Tensor) -> Answer:
                return {"divergence": compute(student, inputs.teacher_hidden, weight, self._kind)}

            return differentiated(named, "divergence", inputs, mode)

        return Provider(
            peer.name, build, why_unavailable=peer.why_unavailable, precision=peer.precision, note=peer.note
        )


WORKLOADS = [LinearDivergence("jsd"), LinearDivergence("forward_kl")]

if __name__ == "__main__":
    sys.exit(main(WORKLOADS, "benchmarks.linear_divergence"))
