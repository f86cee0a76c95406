"""How fast the rollouts of an optimizer step are sampled: micro-batch by micro-batch, as was, and all at once.

    python -m benchmarks.step_rollouts --out benchmarks/results/step_rollouts_cpu.json

A step has 16 rollouts, as the paper's; ``accumulate_grad_batches`` says over how many micro-batches they are spread.
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

from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from benchmarks.rollout_providers import Completions, current
from benchmarks.rollout_workloads import Workload, random_workload
from benchmarks.rollouts import seconds_of

STEP_ROLLOUTS = 16
ACCUMULATE = (1, 4, 16)


def per_micro_batch(workload: Workload, accumulate: int) -> Completions:
    """One call of the engine per micro-batch."""
    size = len(workload.requests) // accumulate
    found: Completions = []
    for start in range(0, len(workload.requests), size):
        found += current(workload.with_requests(workload.requests[start : start + size]))
    return found


def measure(workload: Workload, accumulate: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Seconds of both ways at each number of micro-batches, in turns after one run to warm up."""
    expected = current(workload)
    num_tokens = sum(len(completion) for completion in expected)
    device = workload.model.device
    seconds: dict[str, list[float]] = {"together": [], **{str(count): [] for count in accumulate}}
    same = {}
    for _ in range(repeats):
        seconds["together"].append(seconds_of(lambda: current(workload), device))
        for count in accumulate:
            found: list[Completions] = []
            run = lambda count=count, found=found: found.append(per_micro_batch(workload, count))  # noqa: E731
            seconds[str(count)].append(seconds_of(run, device))
            same[count] = sum(one == other for one, other in zip(found[0], expected, strict=True))
    rates = {name: num_tokens / statistics.median(values) for name, values in seconds.items()}
    return [
        {
            "accumulate_grad_batches": count,
            "rollouts_per_micro_batch": len(workload.requests) // count,
            "completion_tokens": num_tokens,
            "tokens_per_second_before": rates[str(count)],
            "tokens_per_second": rates["together"],
            "same_completions": same[count],
            "seconds": {"before": seconds[str(count)], "now": seconds["together"]},
        }
        for count in accumulate
    ]


def table(found: dict[str, Any]) -> str:
    """A row for each number of micro-batches."""
    rows = [
        [
            str(row["accumulate_grad_batches"]),
            str(row["rollouts_per_micro_batch"]),
            f"{row['tokens_per_second_before']:.0f}",
            f"{row['tokens_per_second']:.0f}",
            f"{row['tokens_per_second'] / row['tokens_per_second_before']:.2f}",
            f"{row['same_completions']} of {STEP_ROLLOUTS}",
        ]
        for row in found["rows"]
    ]
    header = (
        "`accumulate_grad_batches`",
        "rollouts per micro-batch",
        "one at a time, tokens/s",
        "together, tokens/s",
        "gain",
        "same completions",
    )
    return markdown_table(header, rows, right=range(5))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", help="by default small on a CPU, qwen3-0.6b on a GPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/step_rollouts.json"))
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    is_cpu = device.type == "cpu"
    model = options.model or ("small" if is_cpu else "qwen3-0.6b")
    dtype = torch.float32 if is_cpu else torch.bfloat16
    workload = random_workload(model, STEP_ROLLOUTS, STEP_ROLLOUTS, {}, device, dtype)
    found = {
        **provenance("benchmarks.step_rollouts", arguments, device),
        "model": model,
        "seconds": "of this process's CPU time" if is_cpu else "of wall time",
        "rows": measure(workload, ACCUMULATE, options.repeats),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
