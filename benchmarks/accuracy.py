"""How far log-probabilities, log-ratios, the gate's gradient and entropies are from float64, by who computed them.

    python -m benchmarks.accuracy --out benchmarks/results/accuracy_cpu.json

Synthetic heads with the vocabulary of Qwen3 and bfloat16 inputs, in two sharpnesses. An error here comes from rounding
alone: everybody gets the same bits.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sgsd_kernels import Implementation, linear_logprob
from torch import Tensor

from benchmarks import cases, exact
from benchmarks.cases import Inputs, Size, make_inputs
from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from benchmarks.peers import ours, row_logprob_peers
from benchmarks.peers.contracts import LogprobFunction
from benchmarks.providers import largest_error, relative_l2

SIZE = Size(tokens=64, teachers=2, width=256)
LOGIT_DEVIATIONS = (5.0, 9.0)
"""Of the synthetic logits: a flat head and a sharp one."""
DEFAULT_FOLDER = Path("benchmarks/results")

_ROUNDINGS = ("eager", "torch.compile")
"""Peers that differ in speed alone from the two roundings that are compared by name."""

HEADER = (
    "who",
    "log-prob, largest",
    "log-ratio, mean",
    "log-ratio, largest",
    "stance score, largest",
    "gate gradient, relative L2",
    "entropy, largest",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one head says of all rows: [1 + K, T] each, the student first."""

    logprob: Tensor
    entropy: Tensor | None
    """None where it offers none."""


@dataclass(frozen=True, slots=True)
class Errors:
    """One row of the table; nats, except the relative L2 of the gate's gradient dL/dlogprob of the student."""

    who: str
    logit_deviation: float
    logprob_max: float | None = None
    log_ratio_mean: float | None = None
    log_ratio_max: float | None = None
    stance_score_max: float | None = None
    gate_gradient_l2: float | None = None
    entropy_max: float | None = None
    reason: str = ""
    """Why there are no numbers."""


def exactly(inputs: Inputs) -> Measured:
    """Float64, in chunks of rows."""
    weight, targets = inputs.weight.double(), inputs.targets.repeat(len(inputs.hidden))
    hidden = inputs.hidden.flatten(0, 1)
    logprob = exact.row_logprob(hidden, weight, targets)
    entropies = []
    for rows in cases.row_chunks(len(hidden), len(weight)):
        logprobs = (hidden[rows].double() @ weight.T).log_softmax(-1)
        entropies.append(-(logprobs.exp() * logprobs).sum(-1))
    return _by_context(inputs, logprob, torch.cat(entropies))


def contestants(device: torch.device) -> dict[str, Callable[[Inputs], Measured] | str]:
    """Who is compared, by name: a function, or the reason why it cannot run here."""
    found: dict[str, Callable[[Inputs], Measured] | str] = {}
    for implementation in ours.IMPLEMENTATIONS:
        reason = ours.why_unavailable(implementation, "linear_logprob")(device)
        found[ours.label(implementation)] = reason or _by_ours(implementation)
    found["bfloat16 logits, bfloat16 log-softmax (the authors)"] = _by_rounding(torch.bfloat16)
    found["bfloat16 logits, float32 log-softmax (TRL, verl's torch path, unsloth)"] = _by_rounding(torch.float32)
    mine = {ours.label(implementation) for implementation in ours.IMPLEMENTATIONS}
    for peer in row_logprob_peers():
        if peer.question == "rows" and peer.name not in mine and not peer.name.startswith(_ROUNDINGS):
            found[peer.name] = peer.why_unavailable(device) or _by_peer(peer.make())
    return found


def compare(size: Size, logit_deviation: float, device: torch.device, seed: int = 0) -> tuple[float, list[Errors]]:
    """The mean entropy of the rows, in nats, and everybody's errors."""
    inputs = make_inputs(size, device, torch.bfloat16, seed, logit_deviation)
    truth = exactly(inputs)
    rows = []
    for name, contestant in contestants(device).items():
        if isinstance(contestant, str):
            rows.append(Errors(name, logit_deviation, reason=contestant))
        else:
            rows.append(replace(_errors(contestant(inputs), truth, inputs), who=name, logit_deviation=logit_deviation))
    assert truth.entropy is not None
    return truth.entropy.mean().item(), rows


def _by_ours(implementation: Implementation) -> Callable[[Inputs], Measured]:
    def compute(inputs: Inputs) -> Measured:
        targets = inputs.targets.repeat(len(inputs.hidden))
        output = linear_logprob(
            inputs.hidden.flatten(0, 1), inputs.weight, targets, entropy=True, implementation=implementation
        )
        return _by_context(inputs, output.logprob, output.entropy)

    return compute


def _by_rounding(softmax_dtype: torch.dtype) -> Callable[[Inputs], Measured]:
    """Logits rounded to bfloat16 and log-softmax in ``softmax_dtype``; entropy from it, as trainers log it."""

    def compute(inputs: Inputs) -> Measured:
        logits = inputs.hidden.flatten(0, 1) @ inputs.weight.T
        logprobs = logits.to(softmax_dtype).log_softmax(-1)
        targets = inputs.targets.repeat(len(inputs.hidden)).unsqueeze(-1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        return _by_context(inputs, logprobs.gather(-1, targets).squeeze(-1), entropy)

    return compute


def _by_peer(logprob: LogprobFunction) -> Callable[[Inputs], Measured]:
    def compute(inputs: Inputs) -> Measured:
        targets = inputs.targets.repeat(len(inputs.hidden))
        return _by_context(inputs, logprob(inputs.hidden.flatten(0, 1), inputs.weight, targets), None)

    return compute


def _by_context(inputs: Inputs, logprob: Tensor, entropy: Tensor | None) -> Measured:
    shape = inputs.hidden.shape[:2]
    return Measured(logprob.reshape(shape), None if entropy is None else entropy.reshape(shape))


def _errors(found: Measured, truth: Measured, inputs: Inputs) -> Errors:
    """From the log-probabilities on everything is in float64: the gate adds no rounding of its own."""
    log_ratio = (found.logprob[1:].double() - found.logprob[0].double()) - (truth.logprob[1:] - truth.logprob[0])
    score, slope = _gate(found, inputs)
    true_score, true_slope = _gate(truth, inputs)
    entropy = None
    if found.entropy is not None and truth.entropy is not None:
        entropy = largest_error(found.entropy, truth.entropy)
    return Errors(
        who="",
        logit_deviation=0.0,
        logprob_max=largest_error(found.logprob, truth.logprob),
        log_ratio_mean=log_ratio.abs().mean().item(),
        log_ratio_max=log_ratio.abs().max().item(),
        stance_score_max=largest_error(score, true_score),
        gate_gradient_l2=relative_l2(slope, true_slope),
        entropy_max=entropy,
    )


def _gate(measured: Measured, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Stance scores [B, K] and the loss's gradient [T] in the student's log-probabilities."""
    student = measured.logprob[0].double().requires_grad_()
    gated = exact.gated_loss(student, measured.logprob[1:].double(), inputs)
    (slope,) = torch.autograd.grad(gated.loss, student)
    return gated.stance_score, slope


def table(found: Mapping[str, Any]) -> str:
    """The table of a result file, one part per sharpness, and who has no numbers."""
    parts = []
    for head in found["heads"]:
        rows = [_cells(row) for row in head["rows"] if not row["reason"]]
        title = f"Logits of deviation {head['logit_deviation']:g}, entropy {head['entropy']:.2f} nats:"
        parts += [title, markdown_table(HEADER, rows, right=range(1, len(HEADER)))]
    reasons: dict[str, list[str]] = {}
    for row in found["heads"][0]["rows"]:
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(row["who"])
    parts += [f"Not run: {', '.join(names)} ({reason})." for reason, names in reasons.items()]
    return "\n\n".join(parts)


def _cells(row: Mapping[str, Any]) -> list[str]:
    numbers = [value for key, value in row.items() if key not in ("who", "logit_deviation", "reason")]
    return [row["who"], *("not offered" if value is None else f"{value:.1e}" for value in numbers)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and save."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    device, size = torch.device(options.device), Size.parse(options.size) if options.size else SIZE
    torch.set_float32_matmul_precision("highest")
    start = time.monotonic()
    heads = []
    for deviation in LOGIT_DEVIATIONS:
        entropy, rows = compare(size, deviation, device)
        heads.append({"logit_deviation": deviation, "entropy": entropy, "rows": [asdict(row) for row in rows]})
    found = {
        **provenance("benchmarks.accuracy", arguments, device),
        "size": size.as_dict(),
        "dtype": "bfloat16",
        "seconds": round(time.monotonic() - start),
        "heads": heads,
    }
    out = options.out or DEFAULT_FOLDER / f"accuracy_{device.type}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", metavar="TxKxD[xV]", help=f"{SIZE} where it is not given")
    parser.add_argument("--out", type=Path, help="benchmarks/results/accuracy_DEVICE.json where it is not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
