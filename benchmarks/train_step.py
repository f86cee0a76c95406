"""A training step's scoring, loss and backward pass: ours beside the authors' scheme, over one model.

    python -m benchmarks.train_step --out benchmarks/results/train_step_cpu.json      (a small model)
    python -m benchmarks.train_step --models Qwen/Qwen3-0.6B Qwen/Qwen3-1.7B Qwen/Qwen3-4B --out …      (on a GPU)

Both get the same rollouts (random tokens, completions from a quarter of the longest to all of it) and teacher prompts.
Ours scores them in one micro-batch; the authors' scheme takes one rollout at a time, which costs it least memory. In
float32 the losses must agree before anything is timed. FLOPs are those that torch counts while a step runs; on a CPU it
leaves out attention. Peak memory holds gradients and activations, not the model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.authors_scheme import authors_step, padded_tokens
from benchmarks.machine import provenance
from benchmarks.memory import MEASURES, workspace_bytes
from benchmarks.step_cases import StepInputs, StepSize, make_inputs, qwen3_model, small_model
from benchmarks.step_report import draw, table
from benchmarks.timing import time_runs
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.policy import LiveTeacher
from sgsd_lightning.scoring import Scorer
from sgsd_lightning.types import Verdict

OURS, AUTHORS = "ours", "authors' scheme"
NUM_CONTEXTS = (1, 2, 4, 8, 16)
CPU_SIZE = StepSize(
    num_rollouts=2, num_contexts=8, student_prompt_tokens=60, teacher_prompt_tokens=200, completion_tokens=128
)
CPU_LENGTHS = (32, 128, 512)
GPU_SIZE = StepSize(
    num_rollouts=4, num_contexts=8, student_prompt_tokens=150, teacher_prompt_tokens=700, completion_tokens=1024
)
GPU_LENGTHS = (1024, 2048, 4096)
QUICK_SIZE = StepSize(
    num_rollouts=2, num_contexts=2, student_prompt_tokens=6, teacher_prompt_tokens=12, completion_tokens=8
)
TEACHER_TOKENS_PER_FORWARD = {"cpu": 1024, "cuda": 16384}
"""Bounds the teachers' memory, whatever their number."""
AGREEMENT = 1e-3
"""How far the losses may be apart, relative to the larger of them and 0.001."""


class OurStep:
    """The training step's own scorer and objective."""

    def __init__(self, objective: GatedPolarity, teacher_tokens_per_forward: int) -> None:
        self.scorer = Scorer(teacher_tokens_per_forward=teacher_tokens_per_forward)
        self.objective = objective

    def __call__(self, model: PreTrainedModel, inputs: StepInputs) -> float:
        scores = self.scorer.score(model, LiveTeacher(), inputs.rows, self.objective.score_request)
        verdicts = [Verdict(reward=float(o > 0), accepted=o > 0, answer=None, outcome=o) for o in inputs.outcomes]
        loss = self.objective(scores, verdicts).loss
        loss.backward()
        return loss.item()


def measure(model: PreTrainedModel, size: StepSize, sweep: str, repeats: int) -> list[dict[str, Any]]:
    """Rows of both schemes for one size."""
    inputs = make_inputs(size, model.config.vocab_size)
    objective = GatedPolarity()
    ours = OurStep(objective, TEACHER_TOKENS_PER_FORWARD[model.device.type])
    runs: dict[str, Callable[[], float]] = {
        OURS: lambda: _fresh(model, lambda: ours(model, inputs)),
        AUTHORS: lambda: _fresh(model, lambda: authors_step(model, inputs, size, objective)),
    }
    found = {name: _first_run(run, model.device) for name, run in runs.items()}
    losses = {name: row["loss"] for name, row in found.items() if "loss" in row}
    if model.dtype == torch.float32:
        _check_agreement(losses)
    able = {name: runs[name] for name in losses}
    for name, spread in time_runs(able, model.device, seconds=1.0, repeats=repeats).items():
        found[name]["ms"] = {"median": spread.median, "p20": spread.p20, "p80": spread.p80}
    counts = ours.scorer.token_counts.values()
    padded, run = sum(count.num_padded for count in counts), sum(count.num_run for count in counts)
    authors_run, authors_padded = padded_tokens(inputs, size)
    found[OURS] |= {"num_tokens": run, "padding_frac": padded / run}
    found[AUTHORS] |= {"num_tokens": authors_run, "padding_frac": authors_padded / authors_run}
    return [{"sweep": sweep, "scheme": name, "size": asdict(size), **row} for name, row in found.items()]


def _first_run(run: Callable[[], float], device: torch.device) -> dict[str, Any]:
    """Loss, operations and peak memory of one step; that it does not fit, where it does not."""
    try:
        run()  # what is set up once does not count
        with FlopCounterMode(display=False) as counter:
            loss = run()
        peak = workspace_bytes(lambda: {"loss": torch.tensor(run())}, device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"status": "out of memory"}
    return {"status": "measured", "loss": loss, "flops": counter.get_total_flops(), "peak_bytes": peak}


def _fresh(model: PreTrainedModel, step: Callable[[], float]) -> float:
    model.zero_grad(set_to_none=True)
    loss = step()
    model.zero_grad(set_to_none=True)
    return loss


def _check_agreement(losses: dict[str, float]) -> None:
    if len(losses) < 2:
        return
    found, expected = losses[OURS], losses[AUTHORS]
    if expected == 0 or not abs(found - expected) <= AGREEMENT * max(1e-3, abs(expected)):
        raise RuntimeError(f"the schemes disagree, or have nothing to say; nothing is timed: losses {losses}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write a result file with a picture beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[], help="shapes of Qwen3, on a GPU; none: the small model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="the result file, .json; the picture takes its name with .png")
    options = parser.parse_args(arguments)
    is_cuda = bool(options.models)
    device = torch.device("cuda" if is_cuda else "cpu")
    size = GPU_SIZE if is_cuda else CPU_SIZE
    lengths: Sequence[int] = GPU_LENGTHS if is_cuda else CPU_LENGTHS
    contexts: Sequence[int] = NUM_CONTEXTS
    if options.quick:
        size, lengths, contexts = QUICK_SIZE, (8,), (1, 2)
    rows: list[dict[str, Any]] = []
    for name in options.models or ["small"]:
        model = qwen3_model(name, device) if is_cuda else small_model()
        sizes = [("contexts", replace(size, num_contexts=count)) for count in contexts]
        sizes += [("completion", replace(size, completion_tokens=length)) for length in lengths]
        for sweep, one in sizes:
            rows += [{"model": name, **row} for row in measure(model, one, sweep, options.repeats)]
            print(table(rows[-2:]), flush=True)
        del model
    header = provenance("benchmarks.train_step", list(sys.argv[1:] if arguments is None else arguments), device)
    result = {**header, "memory": MEASURES[device.type], "rows": rows}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        draw(result, options.out.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
