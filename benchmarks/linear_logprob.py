"""Log-probabilities from hidden states: student and teacher rows forward, the student's rows forward and backward.

python -m benchmarks.linear_logprob [--small] [--out benchmarks/results/kernels]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import ClassVar

import torch

from benchmarks import exact
from benchmarks.cases import FORWARD, FROZEN, MODES, TRAINED, Inputs, Mode, Size, full_sizes
from benchmarks.command_line import main
from benchmarks.harness import Tolerance, Workload
from benchmarks.peers import row_logprob_peers
from benchmarks.peers.contracts import RowLogprobPeer
from benchmarks.providers import Answer, Provider, Question, Run, differentiated


class LinearLogprob(Workload):
    """Forward over all (K + 1) T rows. Backward over the student's T rows alone, at the first K of each width."""

    name = "linear_logprob"
    tolerance: ClassVar[Tolerance] = {
        "logprob": {"float32": 1e-4, "bfloat16": 0.5},
        "logprob_mean": {"float32": 1e-4, "bfloat16": 0.5},
        "grad_hidden": {"float32": 1e-2, "bfloat16": 0.3},
        "grad_weight": {"float32": 1e-2, "bfloat16": 0.3},
    }

    def sizes(self) -> list[Size]:
        return full_sizes()

    def modes(self, size: Size) -> Sequence[Mode]:
        full = self.sizes()
        return (FORWARD,) if size in full and size.teachers != full[0].teachers else MODES

    def required_flops(self, size: Size, mode: Mode) -> int:
        if mode == FORWARD:
            return size.product_flops * (1 + size.teachers)
        return size.product_flops * (2 if mode == FROZEN else 3)

    def product_rows(self, size: Size, mode: Mode) -> int:
        return size.rows if mode == FORWARD else size.tokens

    def reference(self, inputs: Inputs, mode: Mode, question: Question, dtype: torch.dtype) -> Answer:
        weight = inputs.weight.to(dtype)
        if mode == FORWARD:
            hidden = inputs.hidden.flatten(0, 1)
            logprob = exact.row_logprob(hidden, weight, inputs.targets.repeat(1 + inputs.size.teachers))
            return _named(logprob, question)
        logprob = exact.row_logprob(inputs.student_hidden, weight, inputs.targets)
        upstream = inputs.upstream if question == "rows" else torch.ones_like(inputs.upstream)
        grad_hidden, grad_weight = exact.row_gradients(
            inputs.student_hidden, weight, inputs.targets, upstream, mode == TRAINED
        )
        answer = {**_named(logprob, question), "grad_hidden": grad_hidden}
        return answer if grad_weight is None else {**answer, "grad_weight": grad_weight}

    def providers(self) -> list[Provider]:
        return [_provider(peer) for peer in row_logprob_peers()]


def _named(logprob: torch.Tensor, question: Question) -> dict[str, torch.Tensor]:
    return {"logprob": logprob} if question == "rows" else {"logprob_mean": logprob.mean()}


def _provider(peer: RowLogprobPeer) -> Provider:
    def named(logprob: torch.Tensor, num_rows: int) -> Answer:
        if peer.question == "rows":
            return {"logprob": logprob}
        return {"logprob_sum": logprob, "logprob_mean": logprob.detach().float() / num_rows}

    def build(inputs: Inputs, mode: Mode) -> Run:
        compute = peer.make()
        if mode == FORWARD:
            all_rows, all_targets = inputs.hidden.flatten(0, 1), inputs.targets.repeat(1 + inputs.size.teachers)

            @torch.no_grad()
            def forward() -> Answer:
                return named(compute(all_rows, inputs.weight, all_targets), len(all_rows))

            return forward
        return differentiated(
            lambda hidden, weight: named(compute(hidden, weight, inputs.targets), len(hidden)),
            "logprob" if peer.question == "rows" else "logprob_sum",
            inputs,
            mode,
            inputs.upstream if peer.question == "rows" else None,
        )

    return Provider(
        peer.name,
        build,
        why_unavailable=peer.why_unavailable,
        precision=peer.precision,
        question=peer.question,
        note=peer.note,
    )


if __name__ == "__main__":
    sys.exit(main([LinearLogprob()], "benchmarks.linear_logprob"))
