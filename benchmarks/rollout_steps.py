"""What decoding a whole optimizer step at once is worth, beside one micro-batch after the other.

    python -m benchmarks.rollout_steps --small --out benchmarks/results/rollout_steps_cpu.json

A step is ``accumulate_grad_batches`` micro-batches of one rollout each, as in the paper's configuration.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from benchmarks.rollout_workloads import Workload, random_workload
from benchmarks.rollouts import seconds_of
from sgsd_lightning.engines import TransformersEngine
from sgsd_lightning.types import Completion

NUM_ROLLOUTS = 16
ACCUMULATED = (1, 4, 16)


def measure(workload: Workload, accumulated: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Seconds of all requests, decoded ``accumulated`` at a time, in turns; the first run of each is a warm-up."""
    found = {number: _decoded(workload, number) for number in accumulated}
    seconds: dict[int, list[float]] = {number: [] for number in accumulated}
    for _ in range(repeats):
        for number in accumulated:
            seconds[number].append(
                seconds_of(lambda number=number: _decoded(workload, number), workload.model.device)  # type: ignore[misc]
            )
    alone = _decoded(workload, 1)
    num_tokens = sum(len(completion.ids) for completion in alone)
    return [
        {
            "workload": workload.name,
            "rollouts": len(workload.requests),
            "accumulate_grad_batches": number,
            "seconds": seconds[number],
            "completion_tokens": num_tokens,
            "tokens_per_second": num_tokens / statistics.median(seconds[number]),
            "same_completions": sum(one.ids == other.ids for one, other in zip(found[number], alone, strict=True)),
            "largest_logprob_difference": max(
                (one.logprobs - other.logprobs).abs().max().item() if one.ids == other.ids else float("nan")
                for one, other in zip(found[number], alone, strict=True)
            ),
        }
        for number in accumulated
    ]


def _decoded(workload: Workload, number: int) -> list[Completion]:
    engine = TransformersEngine()
    return [
        completion
        for start in range(0, len(workload.requests), number)
        for completion in engine.generate(workload.model, workload.requests[start : start + number], workload.sampling)
    ]


def table(found: dict[str, Any]) -> str:
    """Of a result file. Before, every step decoded as accumulate_grad_batches 1 does."""
    rows = found["rows"]
    before = {row["workload"]: row for row in rows if row["accumulate_grad_batches"] == 1}
    body = [
        [
            row["workload"],
            str(row["accumulate_grad_batches"]),
            f"{before[row['workload']]['tokens_per_second']:.0f}",
            f"{row['tokens_per_second']:.0f}",
            f"{row['tokens_per_second'] / before[row['workload']]['tokens_per_second']:.1f}",
            f"{row['same_completions']} of {row['rollouts']}",
            f"{row['largest_logprob_difference']:.1e}",
        ]
        for row in rows
    ]
    header = (
        "model",
        "accumulate_grad_batches",
        "tokens/s by micro-batch",
        "tokens/s by step",
        "times",
        "same completions",
        "largest difference of a logprob",
    )
    return markdown_table(header, body, right=(1, 2, 3, 4, 6))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="models for a CPU; the default where there is no CUDA")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rollout_steps.json"))
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    is_small = options.small or device.type == "cpu"
    shapes = ("small", "small, vocabulary of Qwen3") if is_small else ("qwen3-0.6b",)
    dtype = torch.float32 if is_small else torch.bfloat16
    workloads = (random_workload(name, NUM_ROLLOUTS, NUM_ROLLOUTS, {}, device, dtype) for name in shapes)
    found = {
        **provenance("benchmarks.rollout_steps", arguments, device),
        "transformers": transformers.__version__,
        "seconds": "of this process's CPU time" if device.type == "cpu" else "of wall time",
        "rows": [row for workload in workloads for row in measure(workload, ACCUMULATED, options.repeats)],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
