"""How fast rollouts are sampled: the engine now and before, static caches, compiled decoding, continuous batching.

    python -m benchmarks.rollouts --small --out benchmarks/results/rollouts_cpu.json

On a GPU the model has the shape of Qwen3-0.6B with random weights; that has not been run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from benchmarks.rollout_providers import BEFORE, CONTINUOUS, CURRENT, PROVIDERS, Completions, SortedSampler
from benchmarks.rollout_workloads import Workload, random_workload, toy_workload
from sgsd_lightning.engines.sampling import TokenSampler
from sgsd_lightning.types import SamplingSettings

PAPER = {"sampling_temperature": 1.1, "sampling_top_p": 0.95, "sampling_top_k": 20}
EVALUATION = {"sampling_temperature": 1.0, "sampling_top_p": 0.95}
SAMPLER_ROWS, SAMPLER_VOCABULARY, LOGIT_DEVIATION = 16, 151_936, 6.0
"""A deviation at which random logits have an entropy of a few nats, as a language model's have."""


def measure(workload: Workload, providers: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """Seconds and tokens of each provider, in turns; the first run of each is a warm-up and compiles."""
    rows: dict[str, dict[str, Any]] = {}
    completions: dict[str, Completions] = {}
    for name in providers:
        seconds, completions[name] = _timed(PROVIDERS[name], workload)
        rows[name] = {"workload": _description(workload), "provider": name, "first_seconds": seconds, "seconds": []}
    for repeat in range(repeats):
        for name in providers:
            if repeat == 0 or name != CONTINUOUS:  # once is enough for what takes so long
                rows[name]["seconds"].append(_timed(PROVIDERS[name], workload)[0])
    for name, row in rows.items():
        lengths = [len(completion) for completion in completions[name]]
        row["completion_tokens"] = sum(lengths)
        row["completion_tokens_median"] = statistics.median(lengths)
        row["completion_tokens_max"] = max(lengths)
        row["tokens_per_second"] = sum(lengths) / statistics.median(row["seconds"])
        if BEFORE in completions:
            row["same_completions"] = sum(
                one == other for one, other in zip(completions[name], completions[BEFORE], strict=True)
            )
    return list(rows.values())


def measure_sampler(device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds a row and step, at the vocabulary of Qwen3."""
    generator = torch.Generator().manual_seed(0)
    logits = LOGIT_DEVIATION * torch.randn(SAMPLER_ROWS, SAMPLER_VOCABULARY, generator=generator)
    uniforms = torch.rand(SAMPLER_ROWS, dtype=torch.float64, generator=generator)
    logits, uniforms = logits.to(device), uniforms.to(device)
    rows = []
    for settings in ({}, PAPER, EVALUATION):
        sampling = SamplingSettings(**settings)  # type: ignore[arg-type]
        before, now = SortedSampler(sampling), TokenSampler(sampling)
        found = {"before": before(logits, uniforms), "now": now(logits, uniforms).ids}
        times: dict[str, list[float]] = {"before": [], "now": []}
        for _ in range(repeats):
            times["before"].append(seconds_of(lambda before=before: before(logits, uniforms), device))  # type: ignore[misc]
            times["now"].append(seconds_of(lambda now=now: now(logits, uniforms), device))  # type: ignore[misc]
        rows.append(
            {
                "settings": settings,
                **{f"{name}_ms": 1e3 * statistics.median(values) / SAMPLER_ROWS for name, values in times.items()},
                "same_ids": int((found["before"] == found["now"]).sum()),
                "num_ids": SAMPLER_ROWS,
            }
        )
    return rows


def _timed(provider: Callable[[Workload], Completions], workload: Workload) -> tuple[float, Completions]:
    found: list[Completions] = []
    seconds = seconds_of(lambda: found.append(provider(workload)), workload.model.device)
    return seconds, found[0]


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """On a CPU the time that this process was given, which other processes do not lengthen."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def _description(workload: Workload) -> str:
    return f"{workload.name}: {len(workload.requests)} requests, {workload.batch_size} at a time"


def as_markdown(found: dict[str, Any]) -> str:
    """Tables of a result file."""
    rows = [
        [
            row["workload"],
            row["provider"],
            f"{row['tokens_per_second']:.0f}",
            f"{_speed_up(row, found['rows']):.2f}",
            f"{row['same_completions']} of {row['workload'].split(': ')[1].split()[0]}",
            f"{row['completion_tokens_median']:.0f} ({row['completion_tokens_max']})",
            f"{row['first_seconds']:.1f}",
        ]
        for row in found["rows"]
    ]
    header = (
        "workload",
        "provider",
        "tokens/s",
        "of before",
        "same completions",
        "tokens, median (max)",
        "first run, s",
    )
    table = markdown_table(header, rows, right=(2, 3, 6))
    sampler = [
        [
            ", ".join(f"{name.removeprefix('sampling_')} {value:g}" for name, value in row["settings"].items())
            or "none",
            f"{row['before_ms']:.2f}",
            f"{row['now_ms']:.2f}",
            f"{row['same_ids']} of {row['num_ids']}",
        ]
        for row in found["sampler"]
    ]
    return "\n\n".join(
        [table, markdown_table(("filters", "before, ms a row", "now, ms a row", "same ids"), sampler, right=(1, 2))]
    )


def _speed_up(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> float:
    before = next(r for r in rows if r["provider"] == BEFORE and r["workload"] == row["workload"])
    return float(row["tokens_per_second"] / before["tokens_per_second"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="models for a CPU; the default where there is no CUDA")
    parser.add_argument("--providers", nargs="+", default=[], metavar="PART", help="providers whose name holds one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rollouts.json"))
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    wanted = [n for n in PROVIDERS if not options.providers or any(p in n for p in options.providers) or n == BEFORE]
    rows: list[dict[str, Any]] = []
    for workload, left_out in _workloads(device, options.small or device.type == "cpu"):
        names = [name for name in wanted if name not in left_out]
        rows += measure(workload, names, options.repeats)
        print(f"{_description(workload)}: measured {', '.join(names)}", flush=True)
    found = {
        **provenance("benchmarks.rollouts", arguments, device),
        "transformers": transformers.__version__,
        "seconds": "of this process's CPU time" if device.type == "cpu" else "of wall time",
        "before": BEFORE,
        "now": CURRENT,
        "rows": rows,
        "sampler": measure_sampler(device, options.repeats),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(as_markdown(found))


def _workloads(device: torch.device, is_small: bool) -> Iterator[tuple[Workload, Sequence[str]]]:
    """Each with the providers that are left out of it."""
    if not is_small:
        for batch_size in (128, 32):
            yield random_workload("qwen3-0.6b", 128, batch_size, {}, device, torch.bfloat16), ()
        return
    yield random_workload("small", 48, 48, {}, device, torch.float32), ()
    # what these cost is known from the first
    known = (CONTINUOUS, *(name for name in PROVIDERS if "static" in name))
    yield random_workload("small", 48, 12, {}, device, torch.float32), known
    yield toy_workload(256, 64, device), known
    yield random_workload("small, vocabulary of Qwen3", 24, 24, {}, device, torch.float32), known


if __name__ == "__main__":
    main()
